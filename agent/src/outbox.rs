//! The events on their way to the node: numbered when they happen, kept until acknowledged, read
//! by whichever session is open.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use helios_proto::{
    MAX_OUTPUT_UNSAID,
    v1::{Event, Output, event},
};
use tokio::sync::Notify;

use crate::{
    block::{Block, Pool},
    clock,
    spool::{Spool, output_cost},
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
    /// The most bytes of output in one event.
    max_output: usize,
}

impl Outbox {
    /// An outbox over an empty spool.
    pub fn new(spool: Spool) -> Self {
        Self {
            blocks: Pool::new(FREE_BLOCKS),
            state: Mutex::new(State {
                spool,
                connected: false,
                max_output: MAX_OUTPUT_UNSAID,
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
        let State { spool, max_output, .. } = &mut *state;
        let mut keep = |event| {
            spool.push(Event {
                sequence: 0,
                exec_id,
                time_ms,
                event: Some(event),
            });
        };
        for mut event in events {
            if let event::Event::Output(output) = &mut event {
                while output.data.len() > *max_output {
                    keep(event::Event::Output(Output {
                        stream: output.stream,
                        data: output.data.split_to(*max_output),
                    }));
                }
            }
            keep(event);
        }
        drop(state);
        self.made.notify_waiters();
    }

    /// Waits until so many bytes of output may be pushed, in so many events at once.
    pub async fn room(&self, bytes: usize, events: usize) {
        self.when(&self.freed, |state| {
            let cost = output_cost(bytes, events + bytes / state.max_output);
            state.spool.room(state.connected, cost).then_some(())
        })
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

    /// The most bytes that the node takes in one event of output, as its welcome says; 0 when it does not say. What is
    /// kept already stays as it is.
    pub fn set_max_output(&self, bytes: u32) {
        self.lock().max_output = match usize::try_from(bytes) {
            Ok(0) => MAX_OUTPUT_UNSAID,
            Ok(bytes) => bytes,
            Err(_) => usize::MAX,
        };
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

#[cfg(test)]
mod tests {
    use helios_proto::{MAX_OUTPUT, v1::output::Stream};

    use super::*;
    use crate::{block, spool::Limits};

    fn outbox(dir: &tempfile::TempDir) -> Outbox {
        Outbox::new(Spool::new(dir.path().to_owned(), Limits::default()))
    }

    /// A full block of one stream.
    fn full(outbox: &Outbox) -> event::Event {
        let mut block = outbox.block();
        block.bytes_mut().resize(block::SIZE, b'x');
        event::Event::Output(Output {
            stream: Stream::Stdout.into(),
            data: block.freeze(),
        })
    }

    #[tokio::test]
    async fn output_goes_out_in_pieces_as_large_as_the_node_takes_them() {
        let dir = tempfile::tempdir().unwrap();
        let outbox = outbox(&dir);
        let (mut lengths, mut read) = (Vec::new(), 0);
        // Before the first welcome, then nodes that say it, that take more than there ever is, and that do not say it.
        for said in [None, Some(MAX_OUTPUT as u32), Some(100_000), Some(u32::MAX), Some(0)] {
            if let Some(said) = said {
                outbox.set_max_output(said);
            }
            outbox.push(1, full(&outbox));
            let begun = lengths.len();
            let mut place = None;
            while read < outbox.last() {
                let event = outbox.next(read).await.unwrap();
                read = event.sequence;
                let Some(event::Event::Output(output)) = event.event else {
                    panic!()
                };
                // One behind the other in the block: nothing is copied.
                let at = output.data.as_ptr() as usize;
                assert!(place.is_none_or(|place| place == at));
                place = Some(at + output.data.len());
                lengths.push(output.data.len());
            }
            assert_eq!(lengths[begun..].iter().sum::<usize>(), block::SIZE);
        }
        let (half, whole) = (MAX_OUTPUT_UNSAID, MAX_OUTPUT);
        assert_eq!(
            lengths,
            [half, half, whole, 100_000, whole - 100_000, whole, half, half]
        );
        outbox.acknowledge(read);
        assert_eq!(outbox.blocks.free(), FREE_BLOCKS);
    }

    /// A node that is there gets everything from memory, however late it acknowledges and whatever the output's shape.
    #[tokio::test]
    async fn a_flood_never_meets_the_disk_while_the_node_is_there() {
        let dir = tempfile::tempdir().unwrap();
        for max_output in [0, MAX_OUTPUT as u32] {
            let outbox = outbox(&dir);
            outbox.set_max_output(max_output);
            outbox.set_connected(true);
            let has_room = |bytes, events| {
                let room = outbox.room(bytes, events);
                futures::FutureExt::now_or_never(room).is_some()
            };
            let mut waited = 0;
            for round in 0..400_usize {
                // Now and then a block in which the streams change all the time.
                let events = if round % 7 == 0 { 512 } else { 1 };
                if !has_room(block::SIZE, events) {
                    waited += 1;
                    let last = outbox.last();
                    let first = outbox.lock().spool.first();
                    assert!(last > first + 5, "it is nearly empty");
                    outbox.acknowledge(first + (last - first) / 4);
                    continue;
                }
                let event::Event::Output(mut output) = full(&outbox) else {
                    panic!()
                };
                let len = block::SIZE / events;
                let pieces = (0..events).map(|_| {
                    event::Event::Output(Output {
                        stream: output.stream,
                        data: output.data.split_to(len),
                    })
                });
                outbox.push_all(1, pieces);
                assert!(!outbox.lock().spool.uses_file(), "in round {round}");
            }
            assert!(waited > 20, "{waited}");
        }
    }
}
