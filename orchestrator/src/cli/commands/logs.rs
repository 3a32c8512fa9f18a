//! `helios-ci logs`

use std::{
    io::{IsTerminal as _, Write as _},
    time::Duration,
};

use clap::Args;
use futures::StreamExt as _;
use miette::IntoDiagnostic as _;
use serde_json::Value;

use super::runs::encode;
use crate::{
    cli::{
        Common, Exit, Outcome,
        client::{Client, ClientArgs, ClientError},
    },
    model::state::JobState,
    web::{api::types::JobDetail, live::ansi},
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

/// How often a job between two attempts is looked at.
const LOOK: Duration = Duration::from_millis(300);
/// After a broken connection.
const AGAIN: Duration = Duration::from_secs(1);
/// Tries in a row without a byte before giving up.
const TRIES: u32 = 10;

pub(in crate::cli) async fn run(common: &Common, args: LogsArgs) -> Outcome {
    let client = Client::connect(common, &args.client).await?;
    let job = encode(&args.job);
    if !args.follow {
        let mut body = client.open(&format!("/api/v1/jobs/{job}/logs"), &[]).await?;
        let mut printer = Printer::default();
        while let Some(part) = body.next().await {
            printer.print(&part.into_diagnostic()?).into_diagnostic()?;
        }
        printer.end().into_diagnostic()?;
        client.close().await;
        return Ok(Exit::Success);
    }
    let state = follow(&client, &job).await?;
    client.close().await;
    eprintln!("{state}");
    Ok(Exit::of_state(state.as_str()))
}

/// Prints a job's log as it comes, over all its attempts, and returns the job's final state.
pub(in crate::cli) async fn follow(client: &Client, job: &str) -> miette::Result<JobState> {
    let mut printer = Printer::default();
    let (mut position, mut attempt, mut broken) = (None::<String>, Value::Null, 0);
    loop {
        let headers: Vec<(&str, String)> = position.iter().map(|p| ("last-event-id", p.clone())).collect();
        let mut body = match client.open(&format!("/api/v1/jobs/{job}/logs/stream"), &headers).await {
            Ok(body) => body,
            Err(ClientError::Unreachable { .. } | ClientError::Refused { status: 429 | 503, .. }) if broken < TRIES => {
                broken += 1;
                tokio::time::sleep(AGAIN).await;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        let (mut events, mut ended) = (Events::default(), false);
        'stream: while let Some(Ok(part)) = body.next().await {
            for event in events.push(&part) {
                broken = 0;
                if let Some(id) = event.id {
                    position = Some(id);
                }
                let data: Value = serde_json::from_str(&event.data).unwrap_or_default();
                match event.name.as_str() {
                    "log" => printer.print(&bytes(&data)).into_diagnostic()?,
                    "resync" => position = data["from"].as_str().map(str::to_owned),
                    "end" => {
                        ended = true;
                        if data["attempt"] != attempt {
                            attempt = data["attempt"].clone();
                        }
                        break 'stream;
                    }
                    _ => {}
                }
            }
        }
        if !ended {
            // The daemon restarted or the network broke: go on where we were.
            broken += 1;
            if broken >= TRIES {
                return Err(client
                    .broken(format!("the log stream broke {TRIES} times in a row"))
                    .into());
            }
            tokio::time::sleep(AGAIN).await;
            continue;
        }
        printer.end().into_diagnostic()?;
        // The log ends a moment before the job does; after a machine failure another attempt follows.
        loop {
            let now: JobDetail = match client.get(&format!("/api/v1/jobs/{job}")).await {
                Ok(now) => now,
                Err(ClientError::Unreachable { .. }) => {
                    tokio::time::sleep(AGAIN).await;
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            let state = now.job.state;
            if state.is_terminal() {
                return Ok(state);
            }
            if now.job.attempt.map(|id| id.to_string()).as_deref() != attempt.as_str() {
                position = None;
                break;
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

fn bytes(record: &Value) -> Vec<u8> {
    use base64::Engine as _;
    match record["base64"].as_str() {
        Some(text) => base64::engine::general_purpose::STANDARD
            .decode(text)
            .unwrap_or_default(),
        None => record["text"].as_str().unwrap_or_default().as_bytes().to_vec(),
    }
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

/// One server-sent event.
#[derive(Debug, Default, PartialEq, Eq)]
struct Event {
    id: Option<String>,
    name: String,
    data: String,
}

/// Cuts a byte stream into server-sent events (HTML standard, section 9.2).
#[derive(Default)]
struct Events {
    buffer: Vec<u8>,
    event: Event,
}

impl Events {
    fn push(&mut self, part: &[u8]) -> Vec<Event> {
        self.buffer.extend_from_slice(part);
        let mut events = Vec::new();
        while let Some(end) = self.buffer.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = self.buffer.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            let line = line.trim_end_matches(['\n', '\r']);
            if line.is_empty() {
                let event = std::mem::take(&mut self.event);
                if !event.data.is_empty() {
                    events.push(event);
                }
                continue;
            }
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "id" => self.event.id = Some(value.to_owned()),
                "event" => value.clone_into(&mut self.event.name),
                "data" => {
                    if !self.event.data.is_empty() {
                        self.event.data.push('\n');
                    }
                    self.event.data.push_str(value);
                }
                _ => {}
            }
        }
        events
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_found_however_the_stream_is_cut() {
        let stream = "retry: 1000\n\n: still here\n\nid: 1:2\nevent: log\ndata: {\"a\":1}\n\nevent: end\ndata: {}\n\n";
        for size in 1..stream.len() {
            let mut events = Events::default();
            let found: Vec<Event> = stream
                .as_bytes()
                .chunks(size)
                .flat_map(|part| events.push(part))
                .collect();
            assert_eq!(found.len(), 2, "cut every {size} bytes");
            assert_eq!(
                found[0],
                Event {
                    id: Some("1:2".into()),
                    name: "log".into(),
                    data: "{\"a\":1}".into()
                }
            );
        }
    }
}
