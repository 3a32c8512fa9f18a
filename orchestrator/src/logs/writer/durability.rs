//! What is durable, and what the agent may forget therefore.

use std::{io, sync::Arc};

use tokio::task::JoinHandle;

use super::{CHANNELS, LogWriter, index};
use crate::logs::{
    error::LogError,
    types::{HeldBytes, LogState},
};

/// What one event costs the agent beside its output, in bytes, with a little to spare (`agent/src/spool.rs`).
pub(super) const EVENT_COST: u64 = 320;
/// Two thirds of what an agent keeps in memory, in bytes: when that is full its steps wait.
const PART_OF_AGENT: u64 = 1 << 20;

/// Writes, syncs, and what is acknowledged.
pub(super) struct Durability {
    /// The agent waits no longer for what is held back once it has sent so much since, in bytes.
    limit: u64,
    /// Counts writes to the file, and those of them that are durable.
    writes: u64,
    durable: u64,
    /// The names of the log's directory and of what is in it are durable: the first sync sees to that, as nothing is
    /// acknowledged before it.
    named: bool,
    /// The sync under way.
    syncing: Option<Syncing>,
    /// What the next checkpoint makes acknowledgeable.
    to_store: Option<Handover>,
    /// What a checkpoint has made so.
    stored: Option<Handover>,
}

/// A sync under way, while which the writer writes on.
struct Syncing {
    /// The last write that it makes durable.
    writes: u64,
    /// The event up to which nothing is held back then.
    shown: u64,
    /// What is held back then, when the agent cannot wait for it.
    held: Option<Handover>,
    done: JoinHandle<io::Result<()>>,
}

/// Events of which the file has what is shown, and a checkpoint what is held back.
pub(super) struct Handover {
    /// All events up to this one.
    cursor: u64,
    /// What the agent had sent then.
    sent: u64,
    held: Vec<HeldBytes>,
}

impl Durability {
    /// Of a file that may not be durable as it is. `stored` is what the last checkpoint has.
    pub(super) fn new(stored: Option<Handover>) -> Self {
        Self {
            limit: PART_OF_AGENT,
            writes: 1,
            durable: 0,
            named: false,
            syncing: None,
            to_store: None,
            stored,
        }
    }

    /// As if the agent had no room at all, if it is `crowded`.
    #[cfg(test)]
    pub(super) fn crowd(&mut self, crowded: bool) {
        self.limit = if crowded { 0 } else { PART_OF_AGENT };
    }

    /// The event up to which a checkpoint has what the file has not.
    fn last_stored(&self) -> u64 {
        self.stored.as_ref().map_or(0, |stored| stored.cursor)
    }

    /// Something was written.
    pub(super) fn wrote(&mut self) {
        self.writes += 1;
    }
}

impl Handover {
    /// What a checkpoint remembers.
    pub(super) fn of(state: &LogState) -> Self {
        Self {
            cursor: state.acknowledged,
            sent: 0,
            held: state.held.clone(),
        }
    }
}

impl LogWriter {
    /// The last event of the agent that need not be sent again: it is consumed in full, or a checkpoint has what is held
    /// back of it. Only what [`LogWriter::sync`] returned is durable.
    #[must_use]
    pub fn last_sequence(&self) -> u64 {
        self.last_shown().max(self.durability.last_stored())
    }

    /// The last event of the agent of which, and before which, nothing is held back.
    fn last_shown(&self) -> u64 {
        let [out, err] = self.state().resume;
        out.sequence.min(err.sequence) - 1
    }

    /// What the driver's checkpoint should remember. It may hold the beginning of a secret: store it encrypted.
    #[must_use]
    pub fn state_for_checkpoint(&self) -> LogState {
        let Durability { to_store, stored, .. } = &self.durability;
        let handover = to_store.as_ref().or(stored.as_ref());
        LogState {
            acknowledged: self.last_shown().max(handover.map_or(0, |handover| handover.cursor)),
            left_out: self.left_out,
            held: handover.map_or_else(Vec::new, |handover| handover.held.clone()),
        }
    }

    /// Begins to make everything written so far durable, if nothing is on that way already.
    pub fn begin_sync(&mut self) -> Result<(), LogError> {
        self.usable()?;
        if self.is_syncing() {
            return Ok(());
        }
        // Behind the end there is no state, and its record stays the last.
        if !self.finished && self.state() != self.written {
            self.write_state(0)?;
        }
        let file = Arc::clone(&self.file);
        let clean = self.durability.durable == self.durability.writes;
        let (logs, attempt, named) = (Arc::clone(&self.logs), self.attempt, self.durability.named);
        self.durability.syncing = Some(Syncing {
            writes: self.durability.writes,
            shown: self.last_shown(),
            held: self.held_too_long(),
            done: tokio::task::spawn_blocking(move || {
                if !clean {
                    file.sync_data()?;
                }
                if named { Ok(()) } else { logs.sync_names(attempt) }
            }),
        });
        Ok(())
    }

    /// What is held back, when the agent has sent so much since that it might soon have no room for more.
    fn held_too_long(&self) -> Option<Handover> {
        let since = self
            .pipelines
            .iter()
            .filter_map(|pipeline| pipeline.held_since())
            .min()?;
        let stored = self.durability.stored.as_ref().map_or(0, |stored| stored.sent);
        (self.sent - since.max(stored) > self.durability.limit).then(|| {
            let held = CHANNELS.map(|channel| self.pipelines[index(channel)].held(channel));
            Handover {
                cursor: self.cursor,
                sent: self.sent,
                held: held.concat(),
            }
        })
    }

    /// Whether a sync is under way.
    #[must_use]
    pub fn is_syncing(&self) -> bool {
        self.durability.syncing.is_some()
    }

    /// Waits for the sync under way; never returns without one. Returns the event up to which the
    /// agent may forget: behind it, nothing that masker or scanner hold began. May be dropped and
    /// called again.
    pub async fn synced(&mut self) -> Result<u64, LogError> {
        let Some(syncing) = &mut self.durability.syncing else {
            return std::future::pending().await;
        };
        let done = (&mut syncing.done).await;
        let (writes, shown, held) = (syncing.writes, syncing.shown, syncing.held.take());
        self.durability.syncing = None;
        let synced = done.map_err(|_| LogError::Stopping { attempt: self.attempt })?;
        // After a failed sync nobody knows what is on the disk; a second one would say "all of it".
        synced.map_err(|error| self.fail("sync", error))?;
        let durability = &mut self.durability;
        durability.durable = writes;
        durability.named = true;
        durability.to_store = held;
        // What it holds is in the file by now.
        durability.stored.take_if(|stored| stored.cursor <= shown);
        Ok(shown.max(durability.last_stored()))
    }

    /// Whether the agent waits for events of which a little is held back, and may soon have no room for more. Then what
    /// [`LogWriter::state_for_checkpoint`] says is to be stored, and [`LogWriter::checkpointed`] to be called.
    #[must_use]
    pub fn needs_checkpoint(&self) -> bool {
        self.durability.to_store.is_some()
    }

    /// The state is stored. Returns the event up to which the agent may forget now.
    pub fn checkpointed(&mut self) -> u64 {
        if let Some(handover) = self.durability.to_store.take() {
            self.durability.stored = Some(handover);
        }
        self.durability.last_stored()
    }

    /// Makes everything written durable; see [`LogWriter::synced`].
    pub async fn sync(&mut self) -> Result<u64, LogError> {
        if self.is_syncing() {
            self.synced().await?;
        }
        self.begin_sync()?;
        self.synced().await
    }
}
