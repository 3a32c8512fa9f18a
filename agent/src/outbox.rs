//! The events on their way to the node: numbered when they happen, kept until acknowledged, read
//! by whichever session is open.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use helios_proto::v1::{Event, event};
use tokio::sync::Notify;

use crate::{
    block::{Block, Pool},
    clock,
    spool::Spool,
};

/// So many blocks wait to be used again: about what the node acknowledges at a time. They lie beside what the spool keeps.
const FREE_BLOCKS: usize = 4;

/// Shared by everything that makes events and by the session that sends them.
#[derive(Debug)]
pub struct Outbox {
    /// A plain mutex: nothing is awaited while it is held.
    state: Mutex<State>,
    /// Woken when there are new events; who waits looks again at what it waits for.
    made: Notify,
    /// Woken when there may be more room.
    freed: Notify,
    /// What output is read into.
    blocks: Arc<Pool>,
}

#[derive(Debug)]
struct State {
    spool: Spool,
    connected: bool,
}

impl Outbox {
    /// An outbox over an empty spool.
    pub fn new(spool: Spool) -> Self {
        Self {
            blocks: Pool::new(FREE_BLOCKS),
            state: Mutex::new(State {
                spool,
                connected: false,
            }),
            made: Notify::new(),
            freed: Notify::new(),
        }
    }

    /// Memory for output.
    pub fn block(&self) -> Block {
        self.blocks.take()
    }

    /// Numbers and keeps an event. Never waits.
    pub fn push(&self, exec_id: u64, event: event::Event) {
        self.push_all(exec_id, [event]);
    }

    /// Numbers and keeps events that happened now, in their order. Never waits.
    pub fn push_all(&self, exec_id: u64, events: impl IntoIterator<Item = event::Event>) {
        let time_ms = clock::now_ms();
        let mut state = self.lock();
        for event in events {
            state.spool.push(Event {
                sequence: 0,
                exec_id,
                time_ms,
                event: Some(event),
            });
        }
        drop(state);
        self.made.notify_waiters();
    }

    /// Waits until more output may be made.
    pub async fn room(&self) {
        self.when(&self.freed, |state| state.spool.room(state.connected).then_some(()))
            .await;
    }

    /// The first unacknowledged event after `sequence`, as soon as there is one. An error means that an event cannot be
    /// read back: the promise not to lose output is broken and the agent has to say so by ending.
    pub async fn next(&self, sequence: u64) -> io::Result<Event> {
        self.when(&self.made, |state| {
            state.spool.get(state.spool.first().max(sequence + 1)).transpose()
        })
        .await
    }

    /// Waits until the node has acknowledged everything.
    pub async fn flushed(&self) {
        self.when(&self.freed, |state| state.spool.is_empty().then_some(()))
            .await;
    }

    /// The node has everything up to and including `sequence`. Returns the sequence of the last
    /// event that is now forgotten.
    pub fn acknowledge(&self, sequence: u64) -> u64 {
        let mut state = self.lock();
        state.spool.acknowledge(sequence);
        self.freed.notify_waiters();
        state.spool.first() - 1
    }

    /// Whether a session is open: it decides where unacknowledged output may pile up.
    pub fn set_connected(&self, connected: bool) {
        self.lock().connected = connected;
        self.freed.notify_waiters();
    }

    /// Sequence of the newest event.
    pub fn last(&self) -> u64 {
        self.lock().spool.last()
    }

    async fn when<T>(&self, notice: &Notify, mut look: impl FnMut(&mut State) -> Option<T>) -> T {
        loop {
            // Registered before looking, so that no change between the two is missed.
            let changed = notice.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if let Some(found) = look(&mut self.lock()) {
                return found;
            }
            changed.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
