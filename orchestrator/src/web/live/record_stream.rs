//! The API's stream: records of a job's log, as they are written.

use std::collections::HashMap;

use axum::{
    extract::{Path, Query, State},
    http::HeaderMap,
};
use futures::StreamExt as _;

use super::{
    cursor::LogCursor,
    job_watch::JobWatch,
    log_text::{LogLocation, attempt_of, log_location, log_of},
    stream::{Events, Gone, Producer, Sink, StreamQuery, last_event_id, never_comes, start},
    utf8::Decoder,
};
use crate::{
    logs::{self, Channel, LogStore, Position},
    model::ids::AttemptId,
    store::AttemptRow,
    web::{
        AppState,
        api::types::{LogEnd, LogRecord, Resync},
        authorize::Action,
        http::problem::Problem,
        identity::Caller,
        lookup::{self, parse},
        pages::view,
    },
};

struct Records {
    job: JobWatch,
    number: Option<u32>,
    /// The try that is meant, if there was one when the stream was asked for.
    attempt: Option<AttemptRow>,
    /// Whether the job had ended then.
    ended: bool,
    /// Where the reader said it was.
    from: Option<LogCursor>,
}

/// Makes text of records. A character may be cut between two records of a channel: it belongs to the
/// one that ends it.
#[derive(Default)]
struct Texts(HashMap<(u32, Channel), Decoder>);

/// For a reader that comes back: so many records before its position are read for the beginning
/// of a character. Behind more of another channel's a cut one is broken for it, though not in `base64`.
const LEAD: u64 = 16;

impl Texts {
    async fn before(logs: &LogStore, attempt: AttemptId, from: Position) -> Self {
        let mut texts = Self::default();
        let count = from.record.min(LEAD);
        let lead = Position {
            record: from.record - count,
            ..from
        };
        // Whoever follows is told of a log that cannot be read, or of another generation.
        if let Ok(page) = logs.read(attempt, lead, count as usize).await {
            texts.seed(&page.records);
        }
        texts
    }

    fn seed(&mut self, records: &[logs::LogRecord]) {
        for record in records {
            self.of(record);
        }
    }

    fn of(&mut self, record: &logs::LogRecord) -> String {
        let mut text = String::with_capacity(record.data.len());
        let decoder = self.0.entry((record.step, record.channel)).or_default();
        decoder.feed(&record.data, &mut text);
        text
    }
}

fn log_record(attempt: AttemptId, record: &logs::LogRecord, text: String) -> LogRecord {
    let position = record.position;
    let text = LogRecord {
        position: LogCursor { attempt, position }.to_string(),
        step: record.step,
        channel: record.channel.as_str().to_owned(),
        time: view::rfc3339(record.node_ms),
        text,
        base64: None,
    };
    text.with_bytes(&record.data)
}

/// Where a reader goes on that has read a record.
fn behind(attempt: AttemptId, record: &logs::LogRecord) -> LogCursor {
    let position = Position {
        generation: record.position.generation,
        record: record.position.record + 1,
    };
    LogCursor { attempt, position }
}

/// Tells the reader that what it read no longer holds, and where this stream goes on.
async fn resync(sink: &mut Sink, attempt: AttemptId, position: Position) -> Result<(), Gone> {
    let from = LogCursor { attempt, position }.to_string();
    let resync = Resync {
        from: Some(from.clone()),
    };
    sink.event("resync", Some(from), &resync).await
}

impl Records {
    /// Waits until the job has an attempt whose log may be followed; none when it never will have one.
    async fn attempt_or_end(&mut self, state: &AppState) -> Result<Option<AttemptRow>, Gone> {
        while self.attempt.is_none() && !self.ended {
            self.job.changed().await;
            let version = self.job.version(state).await?;
            if version.attempt.is_some() {
                let detail = self.job.read(state).await?;
                self.attempt = attempt_of(&detail, self.number).map_err(|_| Gone)?.cloned();
            }
            self.ended = version.state.is_terminal();
        }
        Ok(self.attempt.take())
    }

    /// Sends records until the log's end.
    async fn follow(&mut self, state: &AppState, sink: &mut Sink, attempt: AttemptId) -> Result<(), Gone> {
        let from = match self.from {
            Some(from) if from.attempt == attempt => from.position,
            // The numbers of another try's log mean nothing in this one.
            Some(_) => {
                resync(sink, attempt, Position::START).await?;
                Position::START
            }
            None => Position::START,
        };
        let mut texts = Texts::before(state.logs(), attempt, from).await;
        let pages = state.logs().follow(attempt, from);
        tokio::pin!(pages);
        let mut begun = false;
        loop {
            let page = tokio::select! {
                page = pages.next() => page,
                () = self.job.changed(), if !begun => {
                    self.job.version(state).await?;
                    if never_comes(state, attempt).await {
                        return Ok(());
                    }
                    continue;
                }
            };
            let Some(page) = page else { return Ok(()) };
            begun = true;
            let page = match page {
                Ok(page) => page,
                Err(error) => return sink.failed(&error).await.and(Err(Gone)),
            };
            if page.resync {
                texts = Texts::default();
                resync(sink, attempt, page.next).await?;
            }
            for record in &page.records {
                let sent = log_record(attempt, record, texts.of(record));
                sink.event("log", Some(behind(attempt, record).to_string()), &sent)
                    .await?;
            }
            if page.ended {
                return Ok(());
            }
        }
    }
}

impl Producer for Records {
    async fn run(mut self, state: &AppState, sink: &mut Sink) -> Result<(), Gone> {
        let attempt = self.attempt_or_end(state).await?;
        if let Some(attempt) = &attempt {
            match log_location(state, attempt).await {
                // It began after the request was answered: the answer to the next one says where.
                LogLocation::Elsewhere | LogLocation::Removed => return sink.ask_again().await,
                LogLocation::None if attempt.state.is_terminal() => {}
                LogLocation::None | LogLocation::Here => self.follow(state, sink, attempt.id).await?,
            }
        }
        let end = LogEnd {
            attempt: attempt.map(|attempt| attempt.id),
            state: self.job.version(state).await.ok().map(|job| job.state),
        };
        sink.event("end", None, &end).await
    }
}

/// `GET /api/v1/jobs/{id}/logs/stream`
pub async fn api(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
    Query(query): Query<StreamQuery>,
    headers: HeaderMap,
) -> Result<Events, Problem> {
    let hints = state.hints().subscribe();
    let job = lookup::job(&state, &caller, Action::See, &id).await?;
    let from = last_event_id(&headers).or(query.from.as_deref());
    let from: Option<LogCursor> = from.map(parse).transpose()?;
    // Who was in the middle of a try reads that one to its end, also when another has begun.
    let begun = from.and_then(|from| job.attempts.iter().find(|attempt| attempt.id == from.attempt));
    let number = query.number.or(begun.map(|attempt| attempt.number));
    log_of(&state, &caller, &job, number).await?;
    start(
        &state,
        &caller,
        Records {
            attempt: attempt_of(&job, number)?.cloned(),
            ended: job.job.state.is_terminal(),
            job: JobWatch::new(&state, hints, &job),
            number,
            from,
        },
    )
    .await
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(number: u64, step: u32, channel: Channel, data: &[u8]) -> logs::LogRecord {
        let position = Position {
            generation: 1,
            record: number,
        };
        logs::LogRecord {
            position,
            step,
            channel,
            guest_ms: 0,
            node_ms: 0,
            data: data.to_vec().into(),
        }
    }

    proptest! {
        /// However the bytes of two channels are cut into records, and wherever a reader comes back: the texts
        /// together are the text of the whole, and no character is broken.
        #[test]
        fn no_cut_breaks_a_character(
            stdout in "[aé€🦀\n]{0,30}", stderr in "[aé€🦀\n]{0,30}",
            sizes in proptest::collection::vec((any::<bool>(), 1usize..6), 1..8), again in any::<prop::sample::Index>(),
        ) {
            let (mut rests, mut records) = ([stdout.as_bytes(), stderr.as_bytes()], Vec::new());
            for (err, size) in sizes.iter().cycle() {
                // The other one when this one has said everything.
                let lane = if rests[usize::from(*err)].is_empty() { usize::from(!err) } else { usize::from(*err) };
                let (piece, behind) = rests[lane].split_at((*size).min(rests[lane].len()));
                if piece.is_empty() {
                    break;
                }
                let channel = [Channel::Stdout, Channel::Stderr][lane];
                records.push(record(records.len() as u64, 1, channel, piece));
                rests[lane] = behind;
            }
            let back = again.index(records.len() + 1);
            let lead = back.saturating_sub(LEAD as usize);
            // What is cut has at most three bytes, so it began at most three records of its channel ago.
            let far = |channel| {
                let own = records[..back].iter().enumerate().rev().filter(|(_, record)| record.channel == channel);
                own.take(3).last().is_some_and(|(oldest, _)| oldest < lead)
            };
            // A reader is not promised more: see `LEAD`.
            if far(Channel::Stdout) || far(Channel::Stderr) {
                return Ok(());
            }
            let mut texts = Texts::default();
            let mut read = HashMap::<Channel, String>::new();
            for record in &records[..back] {
                read.entry(record.channel).or_default().push_str(&texts.of(record));
            }
            let mut texts = Texts::default();
            texts.seed(&records[lead..back]);
            for record in &records[back..] {
                let text = texts.of(record);
                let sent = log_record(AttemptId::new(), record, text.clone());
                prop_assert_eq!(sent.base64.is_none(), text.as_bytes() == &record.data[..]);
                prop_assert_eq!(&sent.bytes().unwrap()[..], &record.data[..]);
                read.entry(record.channel).or_default().push_str(&text);
            }
            prop_assert_eq!(read.remove(&Channel::Stdout).unwrap_or_default(), stdout);
            prop_assert_eq!(read.remove(&Channel::Stderr).unwrap_or_default(), stderr);
        }
    }
}
