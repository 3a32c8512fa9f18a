//! Opening a log: new, left behind by another daemon, or only to be sealed.

use std::{fs::File, os::unix::fs::FileExt, path::Path, sync::Arc};

use super::{
    CHANNELS, LogWriter,
    append::{Origin, State},
    durability::{Durability, Handover},
    limit::OWN,
};
use crate::{
    clock,
    logs::{
        command::CommandGate,
        error::LogError,
        live::LiveLogs,
        log_dir,
        mask::Patterns,
        pipeline::ChannelPipeline,
        record::{self, ResumePoint},
        recover::{self, Recovered},
        seal,
        tail::Tail,
        types::{HeldBytes, LogState},
    },
    model::ids::AttemptId,
    secret::Secret,
};

impl LogWriter {
    /// See [`crate::logs::LogStore::open_writer`]. Blocks.
    pub(in crate::logs) fn open(
        logs: Arc<LiveLogs>,
        attempt: AttemptId,
        masks: Vec<Secret>,
        cap: u64,
        resume: Option<LogState>,
    ) -> Result<LogWriter, LogError> {
        let masks = unique(masks);
        // What was written under more secrets than are known now comes again from the agent.
        let known = Some(masks.len());
        let mut writer = Self::recover(logs, attempt, masks, known, cap, resume.is_some())?;
        if let Some(state) = resume.filter(|_| !writer.finished) {
            writer.restore(&state)?;
        }
        writer.warn_of_short_masks()?;
        Ok(writer)
    }

    /// Opens a log whose attempt has ended, only to seal it. Its secrets were forgotten with the attempt, and its
    /// agent says nothing again: everything in the file counts, masked as it was when it was written. Blocks.
    pub(in crate::logs) fn open_left(logs: Arc<LiveLogs>, attempt: AttemptId) -> Result<LogWriter, LogError> {
        let mut writer = Self::recover(logs, attempt, Vec::new(), None, u64::MAX - OWN, true)?;
        if !writer.finished {
            let step = writer
                .live
                .index(|index| index.steps.last().map_or(0, |span| span.step));
            writer.system(step, "The log was interrupted here; its end may be missing.")?;
        }
        Ok(writer)
    }

    /// Becomes the writer of what the directory holds. `known` is how many secrets the writer knows; see
    /// [`recover::recover`]. `resumed` says that there was a writer before.
    fn recover(
        logs: Arc<LiveLogs>,
        attempt: AttemptId,
        masks: Vec<Secret>,
        known: Option<usize>,
        cap: u64,
        resumed: bool,
    ) -> Result<LogWriter, LogError> {
        let patterns = Patterns::new(&masks)?;
        let claim = logs.claim(attempt)?;
        let dir = logs.dir(attempt);
        if dir.join(log_dir::SEALED).exists() {
            seal::remove_plain(&dir)?;
            return Err(LogError::Sealed { attempt });
        }
        let is_new = log_dir::create_dir(&dir)?;
        // The format first: records of another one would be taken for damage, and cut off.
        let meta = log_dir::read_meta(&dir)?;
        let (file, path) = log_dir::open_records(&dir)?;
        let recovered = recover::recover(&file, &path, known)?;
        cut(&file, &path, &recovered)?;
        let boot = logs.boot();
        let generation = match meta {
            None if is_new && !resumed => log_dir::write_first_meta(&dir, boot)?.generation,
            // The first one went with the host's power, and readers may have seen more than what is left, if anything is.
            None => log_dir::write_meta(&dir, 2, boot)?.generation,
            Some(meta) => {
                // What an earlier boot wrote and did not sync may have been seen and be gone.
                let same = meta.boot == boot && boot.is_some();
                if same && !recovered.lost {
                    meta.generation
                } else {
                    log_dir::write_meta(&dir, meta.generation + 1, boot)?.generation
                }
            }
        };
        let Recovered {
            index,
            end,
            state_record,
            last,
            capped,
            finished,
            left_out,
            ..
        } = recovered;
        let resume = last.map_or([ResumePoint::clean(0); 2], |header| header.resume);
        let stopped = last.and_then(|header| header.stopped);
        let cursor = resume[0].sequence.min(resume[1].sequence) - 1;
        let file = Arc::new(file);
        let live = claim.publish(Arc::clone(&file), path.clone(), generation, index);
        Ok(Self {
            logs,
            attempt,
            live,
            file,
            path,
            masks,
            patterns,
            pipelines: resume.map(ChannelPipeline::new),
            gate: CommandGate { stopped },
            cursor,
            sent: 0,
            end,
            state_record,
            written: State {
                cursor,
                resume,
                stopped,
                left_out,
            },
            cap,
            capped,
            tail: Tail::default(),
            left_out,
            tail_lost: capped && !finished,
            finished,
            durability: Durability::new(None),
            broken: false,
            warned: last.is_some(),
            warned_of_partial: false,
            text: Vec::new(),
            records: Vec::new(),
        })
    }

    /// Takes over what the checkpoint of the last daemon says.
    fn restore(&mut self, state: &LogState) -> Result<(), LogError> {
        self.left_out = self.left_out.max(state.left_out);
        // Of each channel either the file says that all is done, or what is not is here.
        let is_whole = CHANNELS.into_iter().zip(self.state().resume).all(|(channel, resume)| {
            let goes_on = |held: &HeldBytes| {
                held.channel == channel && held.sequence == resume.sequence && held.offset <= resume.offset
            };
            resume.sequence > state.acknowledged || state.held.iter().any(goes_on)
        });
        if !is_whole {
            return self.missing(0, state.acknowledged);
        }
        self.cursor = self.cursor.max(state.acknowledged);
        self.durability = Durability::new(Some(Handover::of(state)));
        for held in &state.held {
            let now = clock::now_ms();
            let origin = Origin {
                step: held.step,
                channel: held.channel,
                guest_ms: now,
                node_ms: now,
            };
            self.accept(origin, held.sequence, held.offset, &held.data, 0)?;
        }
        Ok(())
    }
}

/// Cuts off what is behind the last sound record. A file without a head becomes one with it.
fn cut(file: &File, path: &Path, recovered: &Recovered) -> Result<(), LogError> {
    let end = if recovered.has_head { recovered.end } else { 0 };
    file.set_len(end)
        .map_err(|error| LogError::io("truncate", path, error))?;
    if recovered.has_head {
        return Ok(());
    }
    file.write_all_at(&record::head(), 0)
        .map_err(|error| LogError::io("write", path, error))
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
