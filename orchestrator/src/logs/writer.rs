//! The one writer of a log.

use std::{fs::File, os::unix::fs::FileExt, path::PathBuf, sync::Arc};

use tokio::task::JoinHandle;

use super::{
    LogStore, MAX_PIECE,
    command::unescape,
    error::LogError,
    forms,
    lane::{Found, Lane},
    mask::{Hold, Patterns},
    record::{CAPPED, FINAL, HELD, Header, LONG, MARK, MASKS, PART, Resume, TAIL},
    recover::{self, Scan},
    store::Live,
    tail::{Kept, Tail},
    types::{Channel, Effect, LogState, LogSummary},
};
use crate::{clock, model::ids::AttemptId, secret::Secret};

/// Our own lines may exceed the limit by this much, in bytes, so that a capped log still tells live
/// readers what goes on.
const OWN: u64 = 1 << 20;

/// Everything of an attempt's log that is written: masks, `::add-mask::`, framing, limit, durability.
/// One task owns it. After an error it refuses everything: open the log again, and the agent sends
/// again what is missing. Dropped without [`LogWriter::seal`], the log stays open and readable.
pub struct LogWriter {
    store: LogStore,
    attempt: AttemptId,
    live: Arc<Live>,
    file: Arc<File>,
    path: PathBuf,
    masks: Vec<Secret>,
    patterns: Option<Patterns>,
    lanes: [Lane; 2],
    /// Every event up to this one has been seen.
    cursor: u64,
    /// Where the next record goes.
    end: u64,
    /// Where the file's last record begins if it is a mark.
    mark: Option<u64>,
    /// The state that the file's last record holds.
    written: State,
    cap: u64,
    capped: bool,
    tail: Tail,
    left_out: u64,
    /// The tail ring was lost with an earlier daemon.
    tail_lost: bool,
    /// The tail is appended already: only sealing remains.
    finished: bool,
    /// Counts writes to the file, and those of them that are durable.
    writes: u64,
    durable: u64,
    /// The sync under way.
    syncing: Option<Syncing>,
    broken: bool,
    /// A secret too short to mask has been warned of.
    warned: bool,
    /// Reused space: masked text of one event, records of one event.
    text: Vec<u8>,
    records: Vec<u8>,
}

/// A sync under way, while which the writer writes on.
struct Syncing {
    /// The last write that it makes durable.
    writes: u64,
    /// The event up to which the agent may forget then.
    acknowledge: u64,
    done: JoinHandle<std::io::Result<()>>,
}

/// What a record says besides its data.
#[derive(Clone, Copy, PartialEq, Eq)]
struct State {
    cursor: u64,
    resume: [Resume; 2],
    left_out: u64,
}

/// What records are about.
#[derive(Clone, Copy)]
struct About {
    step: u32,
    channel: Channel,
    guest_ms: i64,
    node_ms: i64,
}

impl LogWriter {
    /// Opens an attempt's log, new or left behind by another daemon, whose half-written end is cut
    /// off. `cap` is in bytes of the plain file; `resume` is what the driver's checkpoint remembers.
    pub async fn open(
        dir: &LogStore,
        attempt: AttemptId,
        masks: Vec<Secret>,
        cap: u64,
        resume: Option<LogState>,
    ) -> Result<LogWriter, LogError> {
        let store = dir.clone();
        let opened = tokio::task::spawn_blocking(move || {
            // What was written under more secrets than are known now comes again from the agent.
            let known = Some(unique(masks.clone()).len());
            Self::open_now(store, attempt, masks, known, cap, resume)
        });
        opened.await.map_err(|_| LogError::Stopping { attempt })?
    }

    /// Opens a log whose attempt has ended, only to seal it. Its secrets were forgotten with the attempt, and its
    /// agent says nothing again: everything in the file counts, masked as it was when it was written.
    pub(super) fn open_left(store: LogStore, attempt: AttemptId) -> Result<LogWriter, LogError> {
        let mut writer = Self::open_now(store, attempt, Vec::new(), None, u64::MAX - OWN, None)?;
        if !writer.finished {
            let step = writer
                .live
                .index(|index| index.steps.last().map_or(0, |span| span.step));
            writer.system(step, "The log was interrupted here; its end may be missing.")?;
        }
        Ok(writer)
    }

    /// `known` is how many secrets the writer knows; see [`recover::scan`].
    fn open_now(
        store: LogStore,
        attempt: AttemptId,
        masks: Vec<Secret>,
        known: Option<usize>,
        cap: u64,
        resume: Option<LogState>,
    ) -> Result<LogWriter, LogError> {
        let patterns = Patterns::new(&masks)?;
        let claim = store.claim(attempt)?;
        let dir = store.dir(attempt);
        if dir.join(recover::SEALED).exists() {
            super::seal::remove_plain(&dir)?;
            return Err(LogError::Sealed { attempt });
        }
        recover::create_dir(&dir)?;
        let (file, path) = recover::open_records(&dir)?;
        let scan = recover::scan(&file, &path, known)?;
        file.set_len(scan.end)
            .map_err(|error| LogError::io("truncate", &path, error))?;
        let boot = store.boot();
        let generation = match recover::read_meta(&dir)? {
            None => recover::write_meta(&dir, 1, boot)?.generation,
            Some(meta) => {
                // What an earlier boot wrote and did not sync may have been seen and be gone.
                let same = meta.boot == boot && boot.is_some();
                if same && !scan.lost {
                    meta.generation
                } else {
                    recover::write_meta(&dir, meta.generation + 1, boot)?.generation
                }
            }
        };
        let Scan {
            index,
            end,
            mark,
            last,
            capped,
            finished,
            left_out,
            lost: _,
        } = scan;
        let resumes = last.map_or([Resume::clean(0); 2], |header| header.resume);
        let cursor = resumes[0].sequence.min(resumes[1].sequence) - 1;
        let file = Arc::new(file);
        let live = claim.publish(Arc::clone(&file), path.clone(), generation, index);
        let mut writer = Self {
            store,
            attempt,
            live,
            file,
            path,
            masks,
            patterns,
            lanes: resumes.map(Lane::new),
            cursor,
            end,
            mark,
            written: State {
                cursor,
                resume: resumes,
                left_out,
            },
            cap,
            capped,
            tail: Tail::default(),
            left_out,
            tail_lost: capped && !finished,
            finished,
            writes: 1,
            durable: 0,
            syncing: None,
            broken: false,
            warned: last.is_some(),
            text: Vec::new(),
            records: Vec::new(),
        };
        if let Some(state) = resume {
            writer.left_out = writer.left_out.max(state.left_out);
            if writer.last_sequence() < state.acknowledged {
                writer.missing(0, state.acknowledged)?;
            }
        }
        writer.warn_of_short_masks()?;
        Ok(writer)
    }

    /// The last event of the agent that is consumed in full: it need not be sent again. Only what
    /// [`LogWriter::sync`] returned is durable.
    #[must_use]
    pub fn last_sequence(&self) -> u64 {
        let [out, err] = self.state().resume;
        out.sequence.min(err.sequence) - 1
    }

    /// What the driver's checkpoint should remember.
    #[must_use]
    pub fn state_for_checkpoint(&self) -> LogState {
        LogState {
            acknowledged: self.last_sequence(),
            left_out: self.left_out,
        }
    }

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
        self.usable()?;
        let known = self.masks.len();
        let capped = self.capped;
        let lane = match channel {
            Channel::Stdout => 0,
            Channel::Stderr => 1,
            Channel::System => {
                // The agent has no such channel; what it says is text like any other.
                return self.output(sequence, step, Channel::Stderr, guest_ms, data);
            }
        };
        if sequence > self.cursor + 1 {
            self.missing(step, sequence - 1)?;
        }
        if self.lanes[lane].holds() && self.lanes[lane].step != step {
            self.release(lane)?;
        }
        self.lanes[lane].step = step;
        let about = About {
            step,
            channel,
            guest_ms,
            node_ms: clock::now_ms(),
        };
        self.cursor = self.cursor.max(sequence);
        self.run(about, |lane, patterns, out, found| {
            lane.feed(sequence, data, patterns, out, found)
        })?;
        Ok(Effect {
            new_masks: self.masks[known..].to_vec(),
            cap_reached: self.capped && !capped,
        })
    }

    /// An event without output has been dealt with.
    pub fn consumed(&mut self, sequence: u64) {
        self.cursor = self.cursor.max(sequence);
    }

    /// One line of our own (`Process ended with exit code 1`), masked too; at most 64 KiB of it.
    pub fn system(&mut self, step: u32, line: &str) -> Result<(), LogError> {
        self.usable()?;
        let mut text = Vec::new();
        let mut hold = Hold::default();
        hold.feed(self.patterns.as_ref(), line.as_bytes(), &mut text);
        hold.flush(&mut text);
        text.truncate(MAX_PIECE - 1);
        text.push(b'\n');
        let node_ms = clock::now_ms();
        let about = About {
            step,
            channel: Channel::System,
            guest_ms: node_ms,
            node_ms,
        };
        if self.capped && self.end + text.len() as u64 > self.cap + OWN {
            self.keep(about, &text);
            return Ok(());
        }
        self.append(about, &text, 0)
    }

    /// A step has ended: whatever masker and parser hold back is released now, masked. Masks that an
    /// unfinished last line brought are in [`LogWriter::masks`].
    pub fn end_step(&mut self, step: u32) -> Result<(), LogError> {
        self.usable()?;
        for lane in 0..2 {
            if self.lanes[lane].step == step || self.lanes[lane].holds() {
                self.release(lane)?;
            }
        }
        Ok(())
    }

    /// More secrets to mask from here on. Too many of them end the log: nothing is shown unmasked.
    pub fn add_masks(&mut self, masks: Vec<Secret>) -> Result<(), LogError> {
        self.usable()?;
        let known = self.masks.len();
        self.masks.extend(masks);
        self.masks = unique(std::mem::take(&mut self.masks));
        if self.masks.len() > known {
            self.patterns = Patterns::new(&self.masks).inspect_err(|_| self.broken = true)?;
        }
        self.warn_of_short_masks()
    }

    /// Every secret that is masked, for the driver's checkpoint.
    #[must_use]
    pub fn masks(&self) -> &[Secret] {
        &self.masks
    }

    /// Begins to make everything written so far durable, if nothing is on that way already.
    pub fn begin_sync(&mut self) -> Result<(), LogError> {
        self.usable()?;
        if self.syncing.is_some() {
            return Ok(());
        }
        if self.state() != self.written {
            self.write_mark(0)?;
        }
        let file = Arc::clone(&self.file);
        let clean = self.durable == self.writes;
        self.syncing = Some(Syncing {
            writes: self.writes,
            acknowledge: self.last_sequence(),
            done: tokio::task::spawn_blocking(move || if clean { Ok(()) } else { file.sync_data() }),
        });
        Ok(())
    }

    /// Whether a sync is under way.
    #[must_use]
    pub fn is_syncing(&self) -> bool {
        self.syncing.is_some()
    }

    /// Waits for the sync under way; never returns without one. Returns the event up to which the
    /// agent may forget: behind it, nothing that masker or parser hold began. May be dropped and
    /// called again.
    pub async fn synced(&mut self) -> Result<u64, LogError> {
        let Some(syncing) = &mut self.syncing else {
            return std::future::pending().await;
        };
        let (writes, acknowledge) = (syncing.writes, syncing.acknowledge);
        let done = (&mut syncing.done).await;
        self.syncing = None;
        let synced = done.map_err(|_| LogError::Stopping { attempt: self.attempt })?;
        // After a failed sync nobody knows what is on the disk; a second one would say "all of it".
        synced.map_err(|error| self.fail("sync", error))?;
        self.durable = writes;
        Ok(acknowledge)
    }

    /// Makes everything written durable; see [`LogWriter::synced`].
    pub async fn sync(&mut self) -> Result<u64, LogError> {
        if self.syncing.is_some() {
            self.synced().await?;
        }
        self.begin_sync()?;
        self.synced().await
    }

    /// Ends the log: the kept tail is appended after a notice of the gap, then everything is
    /// compressed. Safe to be killed in: opened again, the log can be sealed again.
    pub async fn seal(mut self) -> Result<LogSummary, LogError> {
        self.usable()?;
        if !self.finished {
            for lane in 0..2 {
                self.release(lane)?;
            }
            self.append_tail()?;
            self.write_mark(FINAL)?;
        }
        self.sync().await?;
        let (store, attempt, left_out) = (self.store.clone(), self.attempt, self.left_out);
        let live = Arc::clone(&self.live);
        let sealed = tokio::task::spawn_blocking(move || store.seal(attempt, &live, left_out));
        sealed.await.map_err(|_| LogError::Stopping { attempt })?
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

    fn fail(&mut self, action: &'static str, error: std::io::Error) -> LogError {
        self.broken = true;
        LogError::io(action, &self.path, error)
    }

    fn state(&self) -> State {
        let resume = [self.lanes[0].resume(self.cursor), self.lanes[1].resume(self.cursor)];
        State {
            cursor: self.cursor,
            resume,
            left_out: self.left_out,
        }
    }

    /// Releases what a lane holds, under the step it belongs to.
    fn release(&mut self, lane: usize) -> Result<(), LogError> {
        let channel = if lane == 0 { Channel::Stdout } else { Channel::Stderr };
        let now = clock::now_ms();
        let about = About {
            step: self.lanes[lane].step,
            channel,
            guest_ms: now,
            node_ms: now,
        };
        self.run(about, |lane, patterns, out, found| lane.end(patterns, out, found))
    }

    /// Lets a lane work and appends what it shows, then what it found.
    fn run(
        &mut self,
        about: About,
        work: impl FnOnce(&mut Lane, &mut Option<Patterns>, &mut Vec<u8>, &mut dyn FnMut(Found<'_>, &mut Option<Patterns>)),
    ) -> Result<(), LogError> {
        let mut text = std::mem::take(&mut self.text);
        text.clear();
        let mut failed = None;
        let (mut too_long, mut empty) = (false, false);
        let masks = &mut self.masks;
        let lane = usize::from(about.channel.code());
        work(
            &mut self.lanes[lane],
            &mut self.patterns,
            &mut text,
            &mut |found, patterns| match found {
                Found::TooLong => too_long = true,
                Found::Value(value) => {
                    let value = unescape(value);
                    empty |= value.trim_ascii().is_empty();
                    let known = masks.len();
                    // A secret is text; of a value that is not, each part that is counts.
                    for part in value
                        .utf8_chunks()
                        .map(|chunk| chunk.valid())
                        .filter(|part| !part.trim().is_empty())
                    {
                        let secret = Secret::new(part);
                        if !masks.contains(&secret) {
                            masks.push(secret);
                        }
                    }
                    if masks.len() > known {
                        match Patterns::new(masks) {
                            Ok(new) => *patterns = new,
                            Err(error) => failed = Some(error),
                        }
                    }
                }
            },
        );
        if let Some(error) = failed {
            // The text behind the command was searched for too little: it is not shown at all.
            self.broken = true;
            return Err(error);
        }
        let result = self.show(about, &text);
        self.text = text;
        result?;
        if too_long {
            self.system(
                about.step,
                "A value of ::add-mask:: is longer than 64 KiB: it is not shown, and not masked elsewhere.",
            )?;
        }
        if empty {
            self.system(about.step, "An ::add-mask:: without a value masks nothing.")?;
        }
        self.warn_of_short_masks()
    }

    /// Appends masked text of the agent, or keeps it for the tail.
    fn show(&mut self, about: About, text: &[u8]) -> Result<(), LogError> {
        if text.is_empty() {
            return Ok(());
        }
        let size = text.len() + text.len().div_ceil(MAX_PIECE) * LONG;
        if !self.capped && self.end + size as u64 > self.cap {
            self.capped = true;
            let line = format!(
                "The log has reached its limit of {} MiB: from here on only its last {} MiB is kept, shown when the job has ended.",
                self.cap >> 20,
                super::tail::KEPT >> 20
            );
            self.keep(about, text);
            return self.system(about.step, &line);
        }
        if self.capped {
            self.keep(about, text);
            return Ok(());
        }
        self.append(about, text, 0)
    }

    fn keep(&mut self, about: About, text: &[u8]) {
        let About {
            step,
            channel,
            guest_ms,
            node_ms,
        } = about;
        self.left_out += self.tail.push(Kept {
            step,
            channel,
            guest_ms,
            node_ms,
            data: text.to_vec(),
        });
    }

    fn append_tail(&mut self) -> Result<(), LogError> {
        if !self.capped {
            return Ok(());
        }
        let (kept, cut) = std::mem::take(&mut self.tail).finish();
        self.left_out += cut;
        let step = kept.first().map_or(0, |piece| piece.step);
        let lost = if self.tail_lost {
            ", and more was lost when helios-ci was restarted"
        } else {
            ""
        };
        if self.left_out > 0 || self.tail_lost {
            self.mark_tail(
                step,
                &format!(
                    "{} bytes are left out here{lost}; the end of the log follows.",
                    self.left_out
                ),
            )?;
        }
        for piece in kept {
            let Kept {
                step,
                channel,
                guest_ms,
                node_ms,
                data,
            } = piece;
            self.append(
                About {
                    step,
                    channel,
                    guest_ms,
                    node_ms,
                },
                &data,
                TAIL,
            )?;
        }
        Ok(())
    }

    fn mark_tail(&mut self, step: u32, line: &str) -> Result<(), LogError> {
        let node_ms = clock::now_ms();
        let about = About {
            step,
            channel: Channel::System,
            guest_ms: node_ms,
            node_ms,
        };
        self.append(about, format!("{line}\n").as_bytes(), TAIL)
    }

    /// Events up to `until` will not come any more. That must be seen, and waiting must end.
    fn missing(&mut self, step: u32, until: u64) -> Result<(), LogError> {
        for lane in 0..2 {
            self.release(lane)?;
        }
        let lost = until - self.last_sequence().min(until);
        self.cursor = until;
        self.lanes = [Lane::new(Resume::clean(until)), Lane::new(Resume::clean(until))];
        self.system(
            step,
            &format!("{lost} events of the machine were lost here; output may be missing."),
        )
    }

    fn warn_of_short_masks(&mut self) -> Result<(), LogError> {
        if self.warned || self.masks.iter().all(|mask| mask.expose().len() >= forms::SHORTEST) {
            return Ok(());
        }
        self.warned = true;
        self.system(0, "A secret is shorter than 4 bytes: it is not masked.")
    }

    /// Appends text as records, one write for all of them.
    fn append(&mut self, about: About, text: &[u8], flags: u8) -> Result<(), LogError> {
        let state = self.state();
        let flags = flags | self.flags(&state);
        let mut records = std::mem::take(&mut self.records);
        records.clear();
        let pieces = text.chunks(MAX_PIECE);
        let last = pieces.len() - 1;
        let mut headers = Vec::with_capacity(1);
        for (i, piece) in pieces.enumerate() {
            // Only the last record of an event says that the event is done.
            let flags = if i == last { flags } else { flags | PART };
            let header = self.header(about, &state, flags, piece.len());
            let begin = records.len();
            records.resize(begin + Header::size(flags), 0);
            records.extend_from_slice(piece);
            header.seal(&mut records[begin..]);
            headers.push((begin, header));
        }
        let written = self.file.write_all_at(&records, self.end);
        if let Err(error) = written {
            // Whatever part of it got there is no record; recovery would cut it off as well.
            let _ = self.file.set_len(self.end);
            self.records = records;
            return Err(self.fail("write", error));
        }
        let ends = headers
            .iter()
            .map(|(begin, header)| (begin, begin + Header::size(header.flags) + header.len as usize));
        self.live
            .extend(headers.iter().zip(ends).map(|((_, header), (begin, end))| {
                let data = &records[end - header.len as usize..end];
                (self.end + *begin as u64, self.end + end as u64, *header, data)
            }));
        self.end += records.len() as u64;
        self.mark = None;
        self.written = state;
        self.writes += 1;
        self.records = records;
        Ok(())
    }

    /// Writes the state down where no data carries it; it takes the place of an earlier mark.
    fn write_mark(&mut self, flags: u8) -> Result<(), LogError> {
        let state = self.state();
        let node_ms = clock::now_ms();
        let about = About {
            step: 0,
            channel: Channel::System,
            guest_ms: state.left_out.cast_signed(),
            node_ms,
        };
        // Always of the same size, so that it can be replaced.
        let header = self.header(about, &state, flags | MARK | HELD | self.flags(&state), 0);
        let mut record = [0; LONG];
        header.seal(&mut record);
        let at = self.mark.unwrap_or(self.end);
        self.file
            .write_all_at(&record, at)
            .map_err(|error| self.fail("write", error))?;
        self.mark = Some(at);
        self.end = at + LONG as u64;
        self.written = state;
        self.writes += 1;
        Ok(())
    }

    fn flags(&self, state: &State) -> u8 {
        let clean = state
            .resume
            .iter()
            .all(|r| (r.sequence, r.offset, r.covered) == (state.cursor + 1, 0, 0));
        (if clean { 0 } else { HELD }) | (if self.capped { CAPPED } else { 0 })
    }

    fn header(&self, about: About, state: &State, flags: u8, len: usize) -> Header {
        Header {
            len: len as u32,
            step: about.step,
            channel: about.channel,
            flags,
            sequence: state.cursor,
            guest_ms: about.guest_ms,
            node_ms: about.node_ms,
            masks: u16::try_from(self.masks.len()).unwrap_or(MASKS),
            resume: state.resume,
        }
    }
}

impl Drop for LogWriter {
    fn drop(&mut self) {
        self.store.release(self.attempt);
    }
}

fn unique(masks: Vec<Secret>) -> Vec<Secret> {
    let mut kept: Vec<Secret> = Vec::with_capacity(masks.len());
    for mask in masks {
        if !kept.contains(&mask) {
            kept.push(mask);
        }
    }
    kept
}

#[cfg(test)]
mod tests;
