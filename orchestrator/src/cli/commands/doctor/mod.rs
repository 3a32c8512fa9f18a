//! `helios-ci doctor`: checks everything that a node needs, leaves nothing changed, and says what to do.

mod forges;
mod host;
mod machines;
mod zones;

use std::fmt;

use clap::Args;
use serde::Serialize;

use crate::{
    cli::{Common, Exit, Outcome, client::json_text},
    config::{Backend, Config, ConfigError, LoadOptions},
};

#[derive(Debug, Args)]
#[command(after_help = "\
Ends with 0 when nothing failed; warnings do not count. Run it as the daemon's user; on a zone host as root, who can
try more.

With --rehearse, as root on a zone host that was set up: one life of a machine under scratch names, from a golden disk
to its removal; each step says whether this host does what helios-ci believes of illumos.

Examples:
  helios-ci doctor
  pfexec helios-ci doctor --rehearse
  helios-ci doctor --json | jq '.[] | select(.status != \"ok\")'")]
pub(in crate::cli) struct DoctorArgs {
    /// Print an array of {name, status, detail, fix}.
    #[arg(long)]
    json: bool,
    /// Also try, in order, everything that only a real illumos host can show, and clean up.
    #[arg(long)]
    rehearse: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    Ok,
    Warning,
    Failure,
}

/// What was seen of one thing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Line {
    name: String,
    status: Status,
    detail: String,
    /// What to do; none when all is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    fix: Option<String>,
}

impl Line {
    fn ok(name: impl Into<String>, detail: impl fmt::Display) -> Self {
        Self {
            name: name.into(),
            status: Status::Ok,
            detail: detail.to_string(),
            fix: None,
        }
    }

    fn bad(status: Status, name: impl Into<String>, detail: impl fmt::Display, fix: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            status,
            detail: detail.to_string(),
            fix: Some(fix.into()),
        }
    }

    fn warning(name: impl Into<String>, detail: impl fmt::Display, fix: impl Into<String>) -> Self {
        Self::bad(Status::Warning, name, detail, fix)
    }

    fn failure(name: impl Into<String>, detail: impl fmt::Display, fix: impl Into<String>) -> Self {
        Self::bad(Status::Failure, name, detail, fix)
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = match self.status {
            Status::Ok => "ok     ",
            Status::Warning => "warning",
            Status::Failure => "FAILURE",
        };
        write!(f, "{status}  {}: {}", self.name, self.detail)?;
        match &self.fix {
            Some(fix) => write!(f, "\n         → {fix}"),
            None => Ok(()),
        }
    }
}

/// Prints each line as soon as it is known, or all of them as JSON.
struct Findings {
    json: bool,
    lines: Vec<Line>,
}

impl Findings {
    fn add(&mut self, line: Line) {
        if !self.json {
            println!("{line}");
        }
        self.lines.push(line);
    }

    fn end(self) -> Outcome {
        if self.json {
            println!("{}", json_text(&self.lines)?);
        }
        Ok(if self.lines.iter().any(|line| line.status == Status::Failure) {
            Exit::Failure
        } else {
            Exit::Success
        })
    }
}

pub(in crate::cli) async fn run(common: &Common, args: DoctorArgs) -> Outcome {
    let mut findings = Findings {
        json: args.json,
        lines: Vec::new(),
    };
    // Nothing else can be checked without a configuration.
    if let Some(config) = configuration(common, &mut findings) {
        host::check(&config, &mut findings).await;
        let zones = config.backend == Backend::Zone && zones::host(&mut findings).await;
        machines::check(&config, &mut findings).await;
        let can_try = zones && zones::rest(&config, &mut findings).await;
        match (args.rehearse, can_try) {
            (true, true) => zones::rehearse(&config, &mut findings).await,
            (true, false) if config.backend != Backend::Zone => findings.add(Line::failure(
                "rehearsal",
                "not begun: this node's machines are no zones",
                "only a host with `backend: zone` has anything to rehearse",
            )),
            (true, false) => findings.add(Line::failure(
                "rehearsal",
                "not begun: this host cannot have zones yet",
                "mend what failed above",
            )),
            (false, _) => {}
        }
        forges::check(&config, &mut findings).await;
    }
    findings.end()
}

fn configuration(common: &Common, findings: &mut Findings) -> Option<Config> {
    let options = LoadOptions {
        dev_env_secrets: common.dev_env_secrets,
    };
    let path = common.config.display();
    match Config::load(&common.config, options) {
        Ok(loaded) => {
            findings.add(Line::ok("configuration", path));
            for warning in loaded.warnings {
                let fix = warning
                    .help
                    .clone()
                    .unwrap_or_else(|| "see docs/config.example.yaml".into());
                findings.add(Line::warning("configuration", &warning, fix));
            }
            Some(loaded.config)
        }
        Err(error) => {
            let fix = match &error {
                ConfigError::Missing { .. } => miette::Diagnostic::help(&error).map(|help| help.to_string()),
                _ => None,
            };
            let fix = fix.unwrap_or_else(|| format!("{} config check", common.program()));
            let report = miette::Report::new(error);
            let causes: Vec<String> = report.chain().map(ToString::to_string).collect();
            findings.add(Line::failure("configuration", causes.join(": "), fix));
            None
        }
    }
}
