//! The logs of all jobs of a run, as they come, and what became of them.

use std::{
    collections::HashSet,
    io::{IsTerminal as _, Write as _},
    time::Duration,
};

use futures::StreamExt as _;
use miette::miette;
use tokio::task::JoinSet;

use super::super::report;
use crate::{
    driver::Deps,
    logs::{Channel, LogStore, Position},
    model::{
        ids::{AttemptId, RunId},
        state::RunState,
    },
    store::{JobDetail, JobRow},
    web::ansi,
};

/// How often the run is looked at between hints.
const LOOK: Duration = Duration::from_millis(200);
/// A line longer than this goes into a pipe in pieces.
const LINE: usize = 64 * 1024;

/// Follows a run to its end and returns its final state.
pub(super) async fn until_the_end(deps: &Deps, run: RunId) -> miette::Result<String> {
    let (mut followers, mut followed) = (JoinSet::new(), HashSet::new());
    let mut hints = deps.hints.subscribe();
    let ended = loop {
        let detail = deps.store.run(run).await.map_err(report)?;
        let detail = detail.ok_or_else(|| miette!("the run is gone from its own database"))?;
        let jobs = detail.attempts.last().map_or(&[][..], |a| a.jobs.as_slice());
        for job in jobs {
            let Some(attempt) = job.attempt.filter(|attempt| followed.insert(*attempt)) else {
                continue;
            };
            if let Some(job_detail) = deps.store.job(job.id).await.map_err(report)? {
                let prefix = (jobs.len() > 1).then(|| job.name.clone());
                followers.spawn(follow(deps.logs.clone(), attempt, prefix, job_detail));
            }
        }
        if detail.summary.state != RunState::Active {
            break detail;
        }
        tokio::select! {
            _ = hints.next() => {}
            () = tokio::time::sleep(LOOK) => {}
        }
    };
    while followers.join_next().await.is_some() {}
    let jobs = ended.attempts.last().map_or(&[][..], |a| a.jobs.as_slice());
    for job in jobs {
        say(&format!("{} {}", mark(&job.state.to_string()), summary(job)));
    }
    Ok(ended.summary.state.to_string())
}

fn mark(state: &str) -> &'static str {
    match state {
        "success" => "✓",
        "skipped" | "cancelled" => "-",
        _ => "✗",
    }
}

fn summary(job: &JobRow) -> String {
    let took = job.started_ms.zip(job.ended_ms).map_or(String::new(), |(from, to)| {
        format!(" in {:.1} s", (to - from).max(0) as f64 / 1000.0)
    });
    let reason = job.reason.as_deref().filter(|_| job.state.to_string() != "success");
    let reason = reason.map_or(String::new(), |reason| format!(": {reason}"));
    ansi::strip(format!("{}: {}{took}{reason}", job.name, job.state).as_bytes())
}

/// Notes about the run go where they do not mix with its output.
fn say(line: &str) {
    eprintln!("{line}");
}

async fn follow(logs: LogStore, attempt: AttemptId, prefix: Option<String>, job: JobDetail) {
    let number = job.attempts.iter().find(|a| a.id == attempt).map_or(1, |a| a.number);
    if number > 1 {
        say(&format!("{}: try {number}", job.job.name));
    }
    let mut lines = Lines::new(prefix);
    let mut pages = std::pin::pin!(logs.follow(attempt, Position::START));
    let mut step = None;
    while let Some(page) = pages.next().await {
        let page = match page {
            Ok(page) => page,
            Err(error) => {
                say(&format!("cannot read the log of {}: {error}", job.job.name));
                return;
            }
        };
        for record in page.records {
            if step != Some(record.step) {
                lines.end();
                step = Some(record.step);
                let name = usize::try_from(record.step)
                    .ok()
                    .and_then(|n| job.plan.steps.get(n))
                    .map(|s| s.name.as_str());
                if let Some(name) = name {
                    lines.line(format!("▸ {name}").as_bytes());
                }
            }
            if record.channel == Channel::System {
                lines.end();
            }
            lines.push(&record.data);
        }
    }
    lines.end();
}

/// Whole lines of one job on standard output, so that jobs side by side never mix within one.
struct Lines {
    prefix: Option<String>,
    rest: Rest,
    /// A line has begun.
    begun: bool,
}

/// A line as far as it has come.
enum Rest {
    /// As the terminal will leave it, freed of control sequences.
    Shown(Box<ansi::Terminal>),
    /// Exact bytes, for a pipe.
    Bytes(Vec<u8>),
}

impl Lines {
    fn new(prefix: Option<String>) -> Self {
        Self {
            prefix,
            rest: if std::io::stdout().is_terminal() {
                Rest::Shown(Box::default())
            } else {
                Rest::Bytes(Vec::new())
            },
            begun: false,
        }
    }

    fn push(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|b| *b == b'\n') {
            let text = piece.strip_suffix(b"\n");
            let long = match &mut self.rest {
                Rest::Shown(terminal) => {
                    terminal.feed(text.unwrap_or(piece));
                    false
                }
                Rest::Bytes(rest) => {
                    rest.extend_from_slice(text.unwrap_or(piece));
                    rest.len() > LINE
                }
            };
            self.begun = true;
            if text.is_some() || long {
                self.end();
            }
        }
    }

    /// Ends the line that has begun, if one has.
    fn end(&mut self) {
        if !std::mem::take(&mut self.begun) {
            return;
        }
        let line = match &mut self.rest {
            Rest::Shown(terminal) => {
                let text = terminal.text().into_bytes();
                terminal.end_line();
                text
            }
            Rest::Bytes(rest) => std::mem::take(rest),
        };
        self.write(&line);
    }

    /// A line of our own.
    fn line(&mut self, line: &[u8]) {
        self.push(line);
        self.end();
    }

    fn write(&self, line: &[u8]) {
        let mut out = std::io::stdout().lock();
        let mut text = Vec::with_capacity(line.len() + 32);
        if let Some(prefix) = &self.prefix {
            text.extend_from_slice(ansi::strip(prefix.as_bytes()).as_bytes());
            text.extend_from_slice(" | ".as_bytes());
        }
        text.extend_from_slice(line);
        text.push(b'\n');
        // A reader that went away (`| head`) ends nothing: the run goes on to its result.
        let _gone = out.write_all(&text).and_then(|()| out.flush());
    }
}
