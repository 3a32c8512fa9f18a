//! What an operator sees: the log on standard error, and metrics on a listener of their own. Neither
//! holds a secret; metrics hold no repository's name.

use std::{fmt, io::IsTerminal as _, sync::Arc, time::Duration};

use http::Method;
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};
use tracing_subscriber::EnvFilter;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people; coloured on a terminal.
    Text,
    /// One JSON object per line.
    Json,
}

impl LogFormat {
    /// As the option `--log-json` says.
    #[must_use]
    pub fn of_option(json: bool) -> Self {
        if json { Self::Json } else { Self::Text }
    }
}

/// The log could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogSetupError {
    /// `RUST_LOG` is not understood.
    #[error("RUST_LOG is not understood: {0}")]
    Filter(String),
    /// It was set up before.
    #[error("the log is already set up: {0}")]
    Twice(String),
}

/// Sends the log to standard error, filtered by `RUST_LOG`, else by how often `-v` was given: information, then our
/// own details, then everybody's.
///
/// # Errors
/// When `RUST_LOG` is not understood, or this was called before.
pub fn log_to_stderr(format: LogFormat, verbose: u8) -> Result<(), LogSetupError> {
    let filter = match std::env::var("RUST_LOG") {
        Ok(text) if !text.is_empty() => EnvFilter::try_new(text).map_err(|e| LogSetupError::Filter(e.to_string()))?,
        _ => EnvFilter::new(match verbose {
            0 => "info",
            1 => "info,helios_ci=debug",
            _ => "debug",
        }),
    };
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let set = match format {
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => lines.json().try_init(),
    };
    set.map_err(|e| LogSetupError::Twice(e.to_string()))
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HttpLabels {
    method: &'static str,
    route: String,
    status: u16,
}

/// The metrics that are counted as things happen. Cheap to clone.
#[derive(Clone)]
pub struct Metrics(Arc<Inner>);

struct Inner {
    registry: Registry,
    http: Family<HttpLabels, Histogram, fn() -> Histogram>,
    log_bytes: Counter,
    findings: Gauge,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// What is counted here alone.
    #[must_use]
    pub fn new() -> Self {
        Self::with(|_| ())
    }

    /// The same, and what other parts count: `register` adds their metrics to the registry.
    #[must_use]
    pub fn with(register: impl FnOnce(&mut Registry)) -> Self {
        let mut registry = Registry::with_prefix("helios_ci");
        register(&mut registry);
        let seconds = || Histogram::new([0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 30.0]);
        let http = Family::<HttpLabels, Histogram, fn() -> Histogram>::new_with_constructor(seconds);
        let log_bytes = Counter::default();
        let findings = Gauge::default();
        registry.register(
            "machine_findings",
            "Things of this node's machines that a person must look at",
            findings.clone(),
        );
        registry.register_with_unit(
            "http_request_duration",
            "Time until an answer began",
            Unit::Seconds,
            http.clone(),
        );
        registry.register("log_bytes", "Bytes of job logs received from agents", log_bytes.clone());
        Self(Arc::new(Inner {
            registry,
            http,
            log_bytes,
            findings,
        }))
    }

    /// One request was answered. The method is one of the few known words: a stranger's invention
    /// would be a label of its own otherwise.
    pub fn http(&self, method: &Method, route: &str, status: u16, took: Duration) {
        let method = match *method {
            Method::GET => "GET",
            Method::HEAD => "HEAD",
            Method::POST => "POST",
            _ => "other",
        };
        let labels = HttpLabels {
            method,
            route: route.to_owned(),
            status,
        };
        self.0.http.get_or_create(&labels).observe(took.as_secs_f64());
    }

    /// An agent sent so many bytes of log.
    pub fn log_bytes(&self, bytes: u64) {
        self.0.log_bytes.inc_by(bytes);
    }

    /// So many things of machines need a person.
    pub fn machine_findings(&self, number: usize) {
        self.0.findings.set(i64::try_from(number).unwrap_or(i64::MAX));
    }

    /// Everything as OpenMetrics text: `more` first, then what was counted here.
    #[must_use]
    pub fn encode_with(&self, more: &Registry) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail. Each registry ends with `# EOF`, which may stand only once.
        let _ = encode(&mut text, more);
        text.truncate(text.trim_end().trim_end_matches("# EOF").len());
        let _ = encode(&mut text, &self.0.registry);
        text
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::gauge::Gauge;

    use super::*;

    #[test]
    fn one_text_of_two_registries() {
        let metrics = Metrics::new();
        metrics.log_bytes(7);
        metrics.http(
            &Method::from_bytes(b"BREW").unwrap(),
            "/runs/{id}",
            405,
            Duration::from_millis(3),
        );
        let mut more = Registry::with_prefix("helios_ci");
        let gauge: Gauge = Gauge::default();
        gauge.set(2);
        more.register("attempts_live", "help", gauge);
        let text = metrics.encode_with(&more);
        assert_eq!(text.matches("# EOF").count(), 1, "{text}");
        for line in [
            "helios_ci_attempts_live 2",
            "helios_ci_log_bytes_total 7",
            "method=\"other\",route=\"/runs/{id}\",status=\"405\"",
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
    }
}
