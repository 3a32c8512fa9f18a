//! `helios-ci logs`

use std::{
    io::{IsTerminal as _, Write as _},
    pin::pin,
    time::Duration,
};

use bytes::Bytes;
use clap::Args;
use eventsource_stream::Eventsource as _;
use futures::{Stream, StreamExt as _};
use miette::IntoDiagnostic as _;
use serde::de::DeserializeOwned;

use super::runs::encode;
use crate::{
    cli::{
        Common, Exit, Outcome,
        client::{Client, ClientArgs, ClientError, not_understood},
    },
    model::{ids::AttemptId, state::JobState},
    web::{
        api::types::{JobDetail, LogEnd, LogRecord, Resync},
        live::ansi,
    },
};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  helios-ci logs 01k9zk6x0f5t3b8w2q7m4d1c0e
  helios-ci logs -f 01k9zk6x0f5t3b8w2q7m4d1c0e")]
pub(in crate::cli) struct LogsArgs {
    #[command(flatten)]
    client: ClientArgs,
    /// The id of a job.
    job: String,
    /// Follow the log until the job ends, and end with its result.
    #[arg(short, long)]
    follow: bool,
}

/// How often a job between two attempts is asked about.
const POLL: Duration = Duration::from_millis(300);
/// After a broken connection.
const AGAIN: Duration = Duration::from_secs(1);
/// Tries in a row without a byte before giving up.
const TRIES: u32 = 10;

pub(in crate::cli) async fn run(common: &Common, args: LogsArgs) -> Outcome {
    let job = encode(&args.job);
    if !args.follow {
        Client::with(common, &args.client, async |client| print_log(client, &job).await).await?;
        return Ok(Exit::Success);
    }
    let state = Client::with(common, &args.client, async |client| follow(client, &job).await).await?;
    eprintln!("{state}");
    Ok(Exit::of_job(state))
}

/// Prints what a job's log holds so far.
async fn print_log(client: &Client, job: &str) -> miette::Result<()> {
    let mut body = client.open(&format!("/api/v1/jobs/{job}/logs"), &[]).await?;
    let mut printer = Printer::default();
    while let Some(part) = body.next().await {
        printer.print(&part.into_diagnostic()?).into_diagnostic()?;
    }
    printer.end().into_diagnostic()
}

/// Prints a job's log as it comes, over all its attempts, and returns the job's final state.
pub(in crate::cli) async fn follow(client: &Client, job: &str) -> miette::Result<JobState> {
    let mut follower = Follower {
        client,
        job,
        printer: Printer::default(),
        position: None,
        broken: 0,
    };
    loop {
        let attempt = follower.print_to_its_end().await?;
        if let Some(state) = follower.final_state(attempt).await? {
            return Ok(state);
        }
        follower.position = None;
    }
}

struct Follower<'a> {
    client: &'a Client,
    job: &'a str,
    printer: Printer,
    /// Where the stream goes on.
    position: Option<String>,
    /// Tries in a row without an event.
    broken: u32,
}

impl Follower<'_> {
    /// Prints the log of one attempt, whatever breaks meanwhile; the attempt, if there was one.
    async fn print_to_its_end(&mut self) -> miette::Result<Option<AttemptId>> {
        let path = format!("/api/v1/jobs/{}/logs/stream", self.job);
        loop {
            let headers: Vec<(&str, String)> = self.position.iter().map(|p| ("last-event-id", p.clone())).collect();
            match self.client.open(&path, &headers).await {
                Ok(body) => {
                    if let Some(end) = self.print_events(body, &path).await? {
                        self.printer.end().into_diagnostic()?;
                        return Ok(end.attempt);
                    }
                }
                Err(ClientError::Unreachable { .. } | ClientError::Refused { status: 429 | 503, .. })
                    if self.broken < TRIES => {}
                Err(error) => return Err(error.into()),
            }
            // The daemon restarted or the network broke: go on where we were.
            self.broken += 1;
            if self.broken > TRIES {
                let reason = format!("the log stream broke {TRIES} times in a row");
                return Err(self.client.broken(reason).into());
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// The end that the stream tells of; none when it breaks before.
    async fn print_events<E>(
        &mut self,
        body: impl Stream<Item = Result<Bytes, E>>,
        path: &str,
    ) -> miette::Result<Option<LogEnd>> {
        let mut events = pin!(body.eventsource());
        while let Some(Ok(event)) = events.next().await {
            self.broken = 0;
            if !event.id.is_empty() {
                self.position = Some(event.id);
            }
            match event.event.as_str() {
                "log" => {
                    let record: LogRecord = read(path, &event.data)?;
                    let bytes = record.bytes().map_err(|e| not_understood(path, &e))?;
                    self.printer.print(&bytes).into_diagnostic()?;
                }
                "resync" => self.position = read::<Resync>(path, &event.data)?.from,
                "end" => return read(path, &event.data).map(Some).map_err(Into::into),
                _ => {}
            }
        }
        Ok(None)
    }

    /// The job's final state; none when another attempt than this follows. The log ends a moment before the job does.
    async fn final_state(&self, attempt: Option<AttemptId>) -> miette::Result<Option<JobState>> {
        loop {
            let now: JobDetail = match self.client.get(&format!("/api/v1/jobs/{}", self.job)).await {
                Ok(now) => now,
                Err(ClientError::Unreachable { .. }) => {
                    tokio::time::sleep(AGAIN).await;
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            if now.job.state.is_terminal() {
                return Ok(Some(now.job.state));
            }
            if now.job.attempt != attempt {
                return Ok(None);
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

fn read<T: DeserializeOwned>(path: &str, data: &str) -> Result<T, ClientError> {
    serde_json::from_str(data).map_err(|e| not_understood(path, &e))
}

/// Prints whole lines: exact bytes into a pipe or file; on a terminal as it would leave them, freed of
/// control sequences.
#[derive(Default)]
struct Printer {
    line: ansi::Terminal,
    /// The line has begun.
    begun: bool,
}

impl Printer {
    fn print(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        let mut out = std::io::stdout().lock();
        if !out.is_terminal() {
            out.write_all(bytes)?;
            return out.flush();
        }
        for piece in bytes.split_inclusive(|b| *b == b'\n') {
            let text = piece.strip_suffix(b"\n");
            self.line.feed(text.unwrap_or(piece));
            self.begun = text.is_none();
            if text.is_some() {
                writeln!(out, "{}", self.line.text())?;
                self.line.end_line();
            }
        }
        out.flush()
    }

    fn end(&mut self) -> std::io::Result<()> {
        if !std::mem::take(&mut self.begun) {
            return Ok(());
        }
        writeln!(std::io::stdout(), "{}", self.line.text())?;
        self.line.end_line();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use eventsource_stream::Event;
    use futures::stream;

    use super::*;

    #[tokio::test]
    async fn events_are_found_however_the_stream_is_cut() {
        let text = "retry: 1000\n\n: still here\n\nid: 1:2\nevent: log\ndata: {\"a\":1}\n\nevent: end\ndata: {}\n\n";
        for size in 1..text.len() {
            let parts = text
                .as_bytes()
                .chunks(size)
                .map(|part| Ok::<_, Infallible>(Bytes::from(part)));
            let found: Vec<Event> = stream::iter(parts).eventsource().map(Result::unwrap).collect().await;
            assert_eq!(found.len(), 2, "cut every {size} bytes");
            assert_eq!(
                (found[0].id.as_str(), found[0].event.as_str(), found[0].data.as_str()),
                ("1:2", "log", "{\"a\":1}")
            );
            assert_eq!((found[1].event.as_str(), found[1].data.as_str()), ("end", "{}"));
        }
    }
}
