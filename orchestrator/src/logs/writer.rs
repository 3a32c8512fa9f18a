//! The one writer of a log.
//!
//! ```text
//!  output(sequence, bytes) ─▶ pipeline of a channel ─▶ record ─▶ write ─▶ readers see it
//!                              │ commands, masks        │                     │
//!                              │ holds back a prefix    │ checksummed,        ▼ begin_sync … synced
//!                              │ of a secret            │ says where the     acknowledged: the agent may forget
//!                              ▼                        ▼ agent must resend
//!                            new masks ─▶ checkpoint   past the cap: a ring of the last bytes
//! ```
//!
//! **A pipeline for each channel.** Each has a scanner for commands and a masker of its own. A masker holds back exactly the
//! longest suffix that may be the beginning of a secret, and never releases it because time has passed: only more bytes,
//! or the end of the step, decide. So what is shown does not depend on how the bytes were cut. A pipeline stops at each
//! command and gives back what it found; the writer acts, and only then the bytes behind the command are passed on: a
//! secret is masked from the first byte behind the line that named it, on both channels.
//!
//! **Each record says how to go on.** Its header holds, for each channel, the event from which the agent must send again and
//! how many bytes of that are in the file already, and how many secrets were known. A daemon that takes over reads the last
//! sound record, cuts off what is behind it, and the agent's resend makes the very same records again (test
//! `kills_change_nothing`). When nothing is to be shown and the state has moved, a record without data holds it.
//!
//! **Durability is separate from visibility.** Readers see a record as soon as it is written. Syncs are grouped, one at a
//! time, while writing goes on; what a sync made durable is acknowledged. After a sync that failed nobody knows what is on
//! the disk, so the writer refuses everything from then on (`LogError::Broken`), and the log is opened anew.
//!
//! **What is held back must not hold up the agent** (`durability`). An event may be acknowledged once all of it is in the
//! file; a held byte on one channel would so keep everything that the other channel wrote since, and the agent has a
//! mebibyte and a half for that. When two thirds of it are used, the driver stores the held bytes in its encrypted checkpoint, and all
//! is acknowledged. They cannot go to the file, which never holds any part of a secret, nor be shown as a mask: whoever
//! takes over would not know that the rest of the secret follows.
//!
//! **The generation** is part of every reader's position. It grows when something that readers may have seen can be gone: a
//! boot of the host without a sync, or a file that was damaged.

mod append;
mod durability;
mod limit;
mod open;

use std::{fs::File, path::PathBuf, sync::Arc};

use self::{
    append::{Origin, State},
    durability::{Durability, EVENT_COST},
};
use super::{
    MAX_PIECE,
    command::CommandGate,
    error::LogError,
    forms,
    live::{LiveLog, LiveLogs},
    mask::{Masker, Patterns},
    pipeline::{ChannelPipeline, Finding, Input},
    record::{FINAL, ResumePoint},
    seal,
    tail::Tail,
    types::{Channel, Effect, LogSummary},
};
use crate::{clock, model::ids::AttemptId, secret::Secret};

/// What a pipeline belongs to, in their order.
const CHANNELS: [Channel; 2] = [Channel::Stdout, Channel::Stderr];

/// Everything of an attempt's log that is written: masks, `::add-mask::`, framing, limit, durability.
/// One task owns it. After an error it refuses everything: open the log again, and the agent sends
/// again what is missing. Dropped without [`LogWriter::seal`], the log stays open and readable.
pub struct LogWriter {
    logs: Arc<LiveLogs>,
    attempt: AttemptId,
    live: Arc<LiveLog>,
    file: Arc<File>,
    path: PathBuf,
    masks: Vec<Secret>,
    patterns: Option<Patterns>,
    /// Of stdout and stderr.
    pipelines: [ChannelPipeline; 2],
    /// Which commands are obeyed now, on both.
    gate: CommandGate,
    /// Every event up to this one has been seen.
    cursor: u64,
    /// What the agent has sent so far, counted as it counts what it keeps; see [`EVENT_COST`].
    sent: u64,
    /// Where the next record goes.
    end: u64,
    /// Where the file's last record begins if it only carries state.
    state_record: Option<u64>,
    /// The state that the file's last record holds.
    written: State,
    cap: u64,
    capped: bool,
    tail: Tail,
    left_out: u64,
    /// The tail ring was lost with an earlier daemon.
    tail_lost: bool,
    /// It has its end, the tail included: only sealing remains.
    finished: bool,
    durability: Durability,
    broken: bool,
    /// A secret too short to mask has been warned of.
    warned: bool,
    /// A value of which only the first line was named has been warned of.
    warned_of_partial: bool,
    /// Reused space: masked text of one event, records of one event.
    text: Vec<u8>,
    records: Vec<u8>,
}

/// What is said in the log of the commands in one event's bytes.
#[derive(Default)]
struct Notices {
    too_long: bool,
    empty: bool,
    partial: bool,
}

impl LogWriter {
    /// One output event of the agent. Events come in order and without gaps; one that was consumed
    /// before is ignored.
    pub fn output(
        &mut self,
        sequence: u64,
        step: u32,
        channel: Channel,
        guest_ms: i64,
        data: &[u8],
    ) -> Result<Effect, LogError> {
        self.writable()?;
        let known = self.masks.len();
        let capped = self.capped;
        if sequence > self.cursor + 1 {
            self.missing(step, sequence - 1)?;
        }
        let origin = Origin {
            step,
            // The agent has no channel of ours; what it says is text like any other.
            channel: if channel == Channel::System {
                Channel::Stderr
            } else {
                channel
            },
            guest_ms,
            node_ms: clock::now_ms(),
        };
        let pipeline = &self.pipelines[index(origin.channel)];
        if pipeline.holds() && pipeline.step != step {
            self.release(origin.channel)?;
        }
        let sent_before = self.sent;
        if sequence > self.cursor {
            self.cursor = sequence;
            self.sent += EVENT_COST + data.len() as u64;
        }
        self.accept(origin, sequence, 0, data, sent_before)?;
        Ok(Effect {
            new_masks: self.masks[known..].to_vec(),
            cap_reached: self.capped && !capped,
        })
    }

    /// An event without output has been dealt with.
    pub fn consumed(&mut self, sequence: u64) {
        if sequence > self.cursor {
            self.cursor = sequence;
            self.sent += EVENT_COST;
        }
    }

    /// One line of our own (`Process ended with exit code 1`), masked too; at most 64 KiB of it.
    pub fn system(&mut self, step: u32, line: &str) -> Result<(), LogError> {
        self.writable()?;
        let mut text = Vec::new();
        let mut masker = Masker::default();
        masker.feed(self.patterns.as_ref(), line.as_bytes(), &mut text);
        masker.flush(&mut text);
        text.truncate(MAX_PIECE - 1);
        text.push(b'\n');
        self.append_notice(step, &text)
    }

    /// A step has ended: whatever masker and scanner hold back is released now, masked, and commands are obeyed again.
    /// Masks that an unfinished last line brought are in [`LogWriter::masks`].
    pub fn end_step(&mut self, step: u32) -> Result<(), LogError> {
        self.writable()?;
        for channel in CHANNELS {
            let pipeline = &self.pipelines[index(channel)];
            if pipeline.step == step || pipeline.holds() {
                self.release(channel)?;
            }
        }
        if self.gate.resume() {
            // The checkpoint may name the next step before anything of it is written: a daemon that goes on from there
            // would obey nothing, and show what the next step asks to mask.
            self.write_state(0)?;
        }
        Ok(())
    }

    /// More secrets to mask from here on. Too many of them end the log: nothing is shown unmasked.
    pub fn add_masks(&mut self, masks: Vec<Secret>) -> Result<(), LogError> {
        self.writable()?;
        self.learn(masks)?;
        self.warn_of_short_masks()
    }

    /// Every secret that is masked, for the driver's checkpoint.
    #[must_use]
    pub fn masks(&self) -> &[Secret] {
        &self.masks
    }

    /// Whether the log has its end: only sealing remains.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.finished
    }

    /// Ends the log: the kept tail is appended after a notice of the gap, and everything is made durable. Readers see the
    /// end from then on. Ending it twice is harmless; what would be written behind it is refused ([`LogError::Ended`]).
    pub async fn end(&mut self) -> Result<(), LogError> {
        self.usable()?;
        if !self.finished {
            for channel in CHANNELS {
                self.release(channel)?;
            }
            self.append_tail()?;
            self.write_state(FINAL)?;
            self.finished = true;
        }
        self.sync().await?;
        self.live.end();
        Ok(())
    }

    /// Ends the log, and compresses everything, when it is its turn: two are compressed at a time, as jobs may end by the
    /// dozen and those that run need the processors. Safe to be killed in: opened again, the log can be sealed again.
    pub async fn seal(mut self) -> Result<LogSummary, LogError> {
        self.end().await?;
        let (dir, left_out) = (self.logs.dir(self.attempt), self.left_out);
        let live = Arc::clone(&self.live);
        let stopping = LogError::Stopping { attempt: self.attempt };
        let Ok(turn) = Arc::clone(&self.logs.seals).acquire_owned().await else {
            return Err(stopping);
        };
        let sealed = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            let summary = seal::write(&dir, &live.file, &live.path, live.generation, left_out)?;
            seal::remove_plain(&dir)?;
            Ok(summary)
        });
        sealed.await.map_err(|_| stopping)?
    }

    fn usable(&self) -> Result<(), LogError> {
        if self.broken {
            Err(LogError::Broken {
                path: self.path.clone(),
            })
        } else {
            Ok(())
        }
    }

    /// Behind the end, which readers have seen, nothing comes.
    fn writable(&self) -> Result<(), LogError> {
        self.usable()?;
        match self.finished {
            true => Err(LogError::Ended { attempt: self.attempt }),
            false => Ok(()),
        }
    }

    fn fail(&mut self, action: &'static str, error: std::io::Error) -> LogError {
        self.broken = true;
        LogError::io(action, &self.path, error)
    }

    /// Passes an event's bytes, which begin at `offset` in it, through their channel's pipeline.
    fn accept(
        &mut self,
        origin: Origin,
        sequence: u64,
        offset: u32,
        data: &[u8],
        sent_before: u64,
    ) -> Result<(), LogError> {
        let pipeline = &mut self.pipelines[index(origin.channel)];
        pipeline.step = origin.step;
        let input = pipeline.accept(sequence, offset, data, sent_before);
        self.run(origin, input)
    }

    /// Releases what a channel holds, under the step it belongs to.
    fn release(&mut self, channel: Channel) -> Result<(), LogError> {
        let now = clock::now_ms();
        let origin = Origin {
            step: self.pipelines[index(channel)].step,
            channel,
            guest_ms: now,
            node_ms: now,
        };
        self.run(origin, Input::end())
    }

    /// Passes bytes through a channel's pipeline, acts on what it finds, and appends what it shows.
    fn run(&mut self, origin: Origin, mut input: Input<'_>) -> Result<(), LogError> {
        let mut text = std::mem::take(&mut self.text);
        text.clear();
        let mut notices = Notices::default();
        loop {
            let pipeline = &mut self.pipelines[index(origin.channel)];
            let Some(finding) = pipeline.advance(&mut input, &self.gate, self.patterns.as_ref(), &mut text) else {
                break;
            };
            // An error means that the text behind a command was searched for too little: it is not shown at all.
            self.obey(finding, &mut notices)?;
        }
        let result = self.append_or_keep(origin, &text);
        self.text = text;
        result?;
        self.append_notices(origin.step, &notices)
    }

    fn obey(&mut self, finding: Finding, notices: &mut Notices) -> Result<(), LogError> {
        match finding {
            Finding::Mask(value) => {
                notices.empty |= value.trim_ascii().is_empty();
                // A secret is text; of a value that is not, each part that is counts.
                let parts = value.utf8_chunks().map(|chunk| chunk.valid());
                let parts = parts.filter(|part| !part.trim().is_empty());
                self.learn(parts.map(Secret::new).collect())?;
            }
            Finding::MaskTooLong => notices.too_long = true,
            Finding::PartialMask => notices.partial = true,
            Finding::StopCommands(token) => {
                self.gate.stop(&token);
                // As GitHub's runner does: whoever reads along must not be able to end it.
                if token.chars().count() > 6 {
                    self.learn(vec![Secret::new(token)])?;
                }
            }
            Finding::ResumeCommands => {
                self.gate.resume();
            }
        }
        Ok(())
    }

    /// Masks these from here on.
    fn learn(&mut self, masks: Vec<Secret>) -> Result<(), LogError> {
        let known = self.masks.len();
        for mask in masks {
            if !self.masks.contains(&mask) {
                self.masks.push(mask);
            }
        }
        if self.masks.len() > known {
            self.patterns = Patterns::new(&self.masks).inspect_err(|_| self.broken = true)?;
        }
        Ok(())
    }

    fn append_notices(&mut self, step: u32, notices: &Notices) -> Result<(), LogError> {
        if notices.too_long {
            self.system(
                step,
                "A value of ::add-mask:: is longer than 64 KiB: it is not shown, and not masked elsewhere.",
            )?;
        }
        if notices.empty {
            self.system(step, "An ::add-mask:: without a value masks nothing.")?;
        }
        if notices.partial && !std::mem::replace(&mut self.warned_of_partial, true) {
            self.system(
                step,
                "An ::add-mask:: ends with its line, and the value seems to go on behind it: that is shown, and not masked. Write the value's line ends as %0A, or mask each of its lines.",
            )?;
        }
        self.warn_of_short_masks()
    }

    fn warn_of_short_masks(&mut self) -> Result<(), LogError> {
        if self.warned || self.masks.iter().all(|mask| mask.expose().len() >= forms::SHORTEST) {
            return Ok(());
        }
        self.warned = true;
        self.system(0, "A secret is shorter than 4 bytes: it is not masked.")
    }

    /// Events up to `until` will not come any more. That must be seen, and waiting must end.
    fn missing(&mut self, step: u32, until: u64) -> Result<(), LogError> {
        for channel in CHANNELS {
            self.release(channel)?;
        }
        let lost = until - self.last_sequence().min(until);
        self.cursor = until;
        self.pipelines = CHANNELS.map(|_| ChannelPipeline::new(ResumePoint::clean(until)));
        // A token may be among them: in doubt what asks to be hidden is hidden.
        self.gate.resume();
        self.system(
            step,
            &format!("{lost} events of the machine were lost here; output may be missing."),
        )
    }
}

impl Drop for LogWriter {
    fn drop(&mut self) {
        self.logs.release(self.attempt);
    }
}

/// Of a channel of the agent in [`CHANNELS`].
fn index(channel: Channel) -> usize {
    usize::from(channel != Channel::Stdout)
}

#[cfg(test)]
mod tests;
