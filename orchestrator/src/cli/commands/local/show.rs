//! The logs of all jobs of a run, as they come, and what became of them.

use std::{
    collections::HashSet,
    fs::File,
    io::{IsTerminal as _, Write as _},
    path::Path,
    time::Duration,
};

use futures::StreamExt as _;
use miette::miette;
use tokio::task::JoinSet;

use crate::{
    cli::report,
    daemon::Deps,
    driver::Section,
    logs::{Channel, LogRecord, LogStore, Position},
    model::{
        ids::{AttemptId, RunId},
        state::{JobState, RunState},
    },
    store::{AttemptRow, JobDetail, JobRow},
    web::live::ansi,
};

/// How often the run is read between hints.
const POLL: Duration = Duration::from_millis(200);
/// A line longer than this goes into a pipe in pieces.
const LINE: usize = 64 * 1024;

/// Follows a run to its end and returns its final state. Logs are also written into the folder `keep`, if there is one.
pub(super) async fn until_the_end(deps: &Deps, run: RunId, keep: Option<&Path>) -> miette::Result<RunState> {
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
                let number = job_detail
                    .attempts
                    .iter()
                    .find(|a| a.id == attempt)
                    .map_or(1, |a| a.number);
                let kept = keep.map(|folder| kept_file(folder, &job.key, number)).transpose()?;
                let lines = Lines::new((jobs.len() > 1).then(|| job.name.clone()), kept);
                if number > 1 {
                    say(&format!("{}: try {number}", job.name));
                }
                followers.spawn(follow(deps.logs.clone(), attempt, lines, job_detail));
            }
        }
        if detail.summary.state != RunState::Active {
            break detail;
        }
        tokio::select! {
            _ = hints.next() => {}
            () = tokio::time::sleep(POLL) => {}
        }
    };
    while followers.join_next().await.is_some() {}
    let jobs = ended.attempts.last().map_or(&[][..], |a| a.jobs.as_slice());
    for job in jobs {
        let detail = deps.store.job(job.id).await.map_err(report)?;
        let attempts = detail.map(|detail| detail.attempts).unwrap_or_default();
        say(&format!("{} {}", sign(job.state), summary(job, &attempts)));
    }
    Ok(ended.summary.state)
}

fn sign(state: JobState) -> &'static str {
    match state {
        JobState::Success => "✓",
        JobState::Skipped | JobState::Cancelled => "-",
        _ => "✗",
    }
}

/// A log's own file: jobs may be called alike but for what a file's name may hold.
fn kept_file(folder: &Path, key: &str, number: u32) -> miette::Result<File> {
    let name: String = key
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '-' || c == '_' {
                c
            } else {
                '-'
            }
        })
        .take(100)
        .collect();
    let mut path = folder.join(format!("{name}.{number}.log"));
    let mut other = 1;
    loop {
        match File::create_new(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                other += 1;
                path.set_file_name(format!("{name}-{other}.{number}.log"));
            }
            made => return made.map_err(|e| miette!("cannot write {}: {e}", path.display())),
        }
    }
}

/// What became of a job, and how long the person waited for it: from the making of its first machine.
fn summary(job: &JobRow, attempts: &[AttemptRow]) -> String {
    let seconds = |from: i64, to: i64| (to - from).max(0) as f64 / 1000.0;
    let all = attempts.first().zip(job.ended_ms);
    let mut took = all.map_or(String::new(), |(first, ended)| {
        format!(" in {:.1} s", seconds(first.created_ms, ended))
    });
    if let Some(last) = attempts.last() {
        took.push_str(&match last.running_ms {
            Some(running) => format!(" ({:.1} s of it to boot)", seconds(last.created_ms, running)),
            None => " (its machine did not come up)".to_owned(),
        });
    }
    let reason = job.reason.as_deref().filter(|_| job.state.to_string() != "success");
    let reason = reason.map_or(String::new(), |reason| format!(": {reason}"));
    ansi::strip(format!("{}: {}{took}{reason}", job.name, job.state).as_bytes())
}

/// Notes about the run go where they do not mix with its output.
fn say(line: &str) {
    eprintln!("{line}");
}

/// What a line of a log belongs to, for a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    Section(Section),
    Step(u32),
}

fn origin(record: &LogRecord) -> Origin {
    let ours = record.channel == Channel::System && record.step == 0;
    match Section::of(&record.data).filter(|_| ours) {
        Some(section) => Origin::Section(section),
        None => Origin::Step(record.step),
    }
}

async fn follow(logs: LogStore, attempt: AttemptId, mut lines: Lines, job: JobDetail) {
    let mut pages = std::pin::pin!(logs.follow(attempt, Position::START));
    let mut current = None;
    while let Some(page) = pages.next().await {
        let page = match page {
            Ok(page) => page,
            Err(error) => {
                say(&format!("cannot read the log of {}: {error}", job.job.name));
                return;
            }
        };
        for record in page.records {
            let origin = origin(&record);
            if current != Some(origin) {
                lines.end();
                current = Some(origin);
                let heading = match origin {
                    Origin::Section(Section::Machine) => Some("Machine"),
                    Origin::Section(Section::End) => Some("End"),
                    Origin::Step(number) => usize::try_from(number)
                        .ok()
                        .and_then(|n| job.plan.steps.get(n))
                        .map(|step| step.name.shown()),
                };
                if let Some(heading) = heading {
                    lines.line(format!("▸ {heading}").as_bytes());
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

/// Whole lines of one job on standard output, so that jobs side by side never mix within one, and in the file that is
/// kept of it.
struct Lines {
    prefix: Option<String>,
    rest: Rest,
    /// A line has begun.
    begun: bool,
    kept: Option<File>,
}

/// A line as far as it has come.
enum Rest {
    /// As the terminal will leave it, freed of control sequences.
    Shown(Box<ansi::Terminal>),
    /// Exact bytes, for a pipe.
    Bytes(Vec<u8>),
}

impl Lines {
    fn new(prefix: Option<String>, kept: Option<File>) -> Self {
        Self {
            prefix,
            rest: if std::io::stdout().is_terminal() {
                Rest::Shown(Box::default())
            } else {
                Rest::Bytes(Vec::new())
            },
            begun: false,
            kept,
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

    fn write(&mut self, line: &[u8]) {
        if let Some(kept) = &mut self.kept
            && let Err(error) = kept.write_all(line).and_then(|()| kept.write_all(b"\n"))
        {
            say(&format!("cannot keep a log: {error}"));
            self.kept = None;
        }
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
