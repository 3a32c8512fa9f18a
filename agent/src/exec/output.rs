//! Passes on what a step writes, without ever making it wait for the network while there is room.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use helios_proto::v1::{Output, OutputSkipped, event, output::Stream};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use super::{
    pipes::{self, Pipes},
    tail::Tail,
};
use crate::{
    block::{self, Block},
    outbox::Outbox,
};

/// Output goes out at once, but not in more than so many pieces: one per this time.
const COALESCE: Duration = Duration::from_millis(5);

/// What is still read of a pipe that somebody may go on writing to. Who cannot be killed, or is to live on, must not
/// keep the step from ending.
const MAX_REST: usize = 4 << 20;

/// So many changes between the streams are gathered before they are sent: each becomes an event.
const MAX_RUNS: usize = 512;

/// From here on a block itself is passed on. Of one with less in it a copy is: a few bytes must not keep all of a block
/// until they are acknowledged.
const FULL_ENOUGH: usize = block::SIZE / 4 * 3;

const STREAMS: [Stream; 2] = [Stream::Stdout, Stream::Stderr];

/// The output of one step on its way to the node.
#[derive(Debug)]
pub struct Pump {
    exec_id: u64,
    outbox: Arc<Outbox>,
    /// The bytes to keep once the node has asked for quiet.
    quiet: watch::Receiver<Option<u64>>,
    tail: Tail,
    pipes: Pipes,
    /// What was read and not sent, in order. It needs no room yet, so that a step without output can
    /// end however full the spool is.
    block: Block,
    /// Which stream the next so many bytes of the block belong to.
    runs: Vec<(Stream, usize)>,
    /// When something was sent last.
    sent: Option<Instant>,
}

impl Pump {
    /// A pump for the output of one exec.
    pub fn new(exec_id: u64, outbox: Arc<Outbox>, quiet: watch::Receiver<Option<u64>>, pipes: Pipes) -> Self {
        Self {
            exec_id,
            block: outbox.block(),
            outbox,
            quiet,
            tail: Tail::default(),
            pipes,
            runs: Vec::new(),
            sent: None,
        }
    }

    /// Somebody may still write, or something waits to be sent.
    pub fn is_busy(&self) -> bool {
        self.pipes.is_open() || self.holds()
    }

    /// Waits for output, or for room for it, and passes it on. Dropping the future loses nothing.
    /// Never resolves once the pump is not busy any more.
    pub async fn step(&mut self) {
        // A flood never waits for its pipe: let others run too.
        tokio::task::coop::consume_budget().await;
        let due = self.sent.map_or_else(Instant::now, |sent| sent + COALESCE);
        if self.holds() && (self.is_full() || Instant::now() >= due) {
            self.room().await;
            self.flush();
            return;
        }
        tokio::select! {
            () = sleep_until(due), if self.holds() => {}
            () = self.pipes.ready() => {}
        }
        self.read();
    }

    /// At the step's end: passes on what is in the pipes, and gives them back.
    pub async fn finish(mut self) -> Pipes {
        self.pipes.sweep();
        let mut left = MAX_REST;
        loop {
            left = left.saturating_sub(self.read());
            if !self.holds() {
                break;
            }
            self.room().await;
            self.flush();
            if left == 0 {
                break;
            }
        }
        let (skipped, pieces) = self.tail.take();
        if skipped > 0 {
            self.outbox.push(
                self.exec_id,
                event::Event::OutputSkipped(OutputSkipped { bytes: skipped }),
            );
        }
        let pieces = pieces.into_iter().map(|(stream, data)| output(stream, data));
        self.outbox.push_all(self.exec_id, pieces);
        self.pipes
    }

    fn holds(&self) -> bool {
        !self.runs.is_empty()
    }

    fn is_full(&self) -> bool {
        self.block.room() < pipes::ROOM || self.runs.len() >= MAX_RUNS
    }

    async fn room(&mut self) {
        // Quiet output needs none, and quiet may be asked for while waiting.
        let quiet = async {
            let _ = self.quiet.wait_for(Option::is_some).await;
        };
        tokio::select! {
            biased;
            () = quiet => {}
            () = self.outbox.room(self.block.bytes().len(), self.runs.len()) => {}
        }
    }

    /// Takes what is there, up to a full block; returns how much that was.
    fn read(&mut self) -> usize {
        let begun = self.block.bytes().len();
        while !self.is_full() {
            let before = self.block.bytes().len();
            let Some(index) = self.pipes.read(&mut self.block) else {
                break;
            };
            let read = self.block.bytes().len() - before;
            match self.runs.last_mut() {
                Some((last, len)) if *last == STREAMS[index] => *len += read,
                _ => self.runs.push((STREAMS[index], read)),
            }
        }
        self.block.bytes().len() - begun
    }

    fn flush(&mut self) {
        let quiet = *self.quiet.borrow();
        if let Some(limit) = quiet {
            let mut rest = self.block.bytes();
            for (stream, len) in self.runs.drain(..) {
                let (run, after) = rest.split_at(len);
                rest = after;
                self.tail.push(stream, run, limit);
            }
            self.block.bytes_mut().clear();
        } else {
            let mut rest = self.take();
            let events = self
                .runs
                .drain(..)
                .map(|(stream, len)| output(stream, rest.split_to(len)));
            self.outbox.push_all(self.exec_id, events);
        }
        self.sent = Some(Instant::now());
    }

    /// Empties the block.
    fn take(&mut self) -> Bytes {
        if self.block.bytes().len() >= FULL_ENOUGH {
            return std::mem::replace(&mut self.block, self.outbox.block()).freeze();
        }
        let copy = Bytes::copy_from_slice(self.block.bytes());
        self.block.bytes_mut().clear();
        copy
    }
}

fn output(stream: Stream, data: Bytes) -> event::Event {
    event::Event::Output(Output {
        stream: stream.into(),
        data,
    })
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeSet,
        fs::File,
        io::{self, Write as _},
        os::fd::{AsRawFd as _, OwnedFd},
        thread,
    };

    use helios_proto::{MAX_OUTPUT, v1::Event};
    use proptest::prelude::*;

    use super::*;
    use crate::spool::{Limits, Spool};

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
    }

    async fn all(outbox: &Outbox) -> Vec<Event> {
        let mut events = Vec::new();
        while (events.len() as u64) < outbox.last() {
            events.push(outbox.next(events.len() as u64).await.unwrap());
        }
        events
    }

    fn of(events: &[Event], wanted: Stream) -> Vec<u8> {
        let mut bytes = Vec::new();
        for event in events {
            if let Some(event::Event::Output(output)) = &event.event {
                assert!(output.data.len() <= MAX_OUTPUT && !output.data.is_empty());
                if output.stream() == wanted {
                    bytes.extend_from_slice(&output.data);
                }
            }
        }
        bytes
    }

    /// What becomes of writes, made one after the other by a thread of its own.
    fn pump_all(open: Open, writes: Vec<(bool, Vec<u8>)>, quiet: Option<u64>) -> Vec<Event> {
        runtime().block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let limits = Limits {
                memory: 256 << 20,
                ..Limits::default()
            };
            let outbox = Arc::new(Outbox::new(Spool::new(dir.path().to_owned(), limits)));
            let (pipes, writers) = open().unwrap();
            let writer = thread::spawn(move || {
                let [mut out, mut err] = writers.map(File::from);
                for (stderr, data) in writes {
                    if stderr { &mut err } else { &mut out }.write_all(&data).unwrap();
                }
            });
            let (_keep, quiet) = watch::channel(quiet);
            let mut pump = Pump::new(7, outbox.clone(), quiet, pipes);
            while pump.is_busy() {
                pump.step().await;
            }
            pump.finish().await;
            writer.join().unwrap();
            all(&outbox).await
        })
    }

    /// What comes of pipes that nobody writes to any more.
    #[cfg(target_os = "linux")]
    async fn pumped(pipes: Pipes) -> Vec<Event> {
        let dir = tempfile::tempdir().unwrap();
        let outbox = Arc::new(Outbox::new(Spool::new(dir.path().to_owned(), Limits::default())));
        let (_keep, quiet) = watch::channel(None);
        let mut pump = Pump::new(7, outbox.clone(), quiet, pipes);
        while pump.is_busy() {
            pump.step().await;
        }
        pump.finish().await;
        all(&outbox).await
    }

    /// The runtime moves its clock on by itself as soon as somebody waits for it and for nothing else.
    #[test]
    fn the_first_output_of_a_burst_waits_for_no_clock() {
        for open in KINDS {
            let paused = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .start_paused(true)
                .build()
                .unwrap();
            paused.block_on(async {
                let dir = tempfile::tempdir().unwrap();
                let outbox = Arc::new(Outbox::new(Spool::new(dir.path().to_owned(), Limits::default())));
                let (pipes, [out, _err]) = open().unwrap();
                let mut out = File::from(out);
                let (_keep, quiet) = watch::channel(None);
                let mut pump = Pump::new(7, outbox.clone(), quiet, pipes);
                out.write_all(b"first\n").unwrap();
                let begun = Instant::now();
                while outbox.last() == 0 {
                    pump.step().await;
                }
                assert_eq!(begun.elapsed(), Duration::ZERO);
                // What comes right behind it is gathered for a while.
                out.write_all(b"second\n").unwrap();
                while outbox.last() == 1 {
                    pump.step().await;
                }
                assert_ne!(begun.elapsed(), Duration::ZERO);
            });
        }
    }

    #[test]
    fn a_flood_uses_its_blocks_again() {
        const BYTES: usize = 40 << 20;
        for open in KINDS {
            let (blocks, bytes) = runtime().block_on(async {
                let dir = tempfile::tempdir().unwrap();
                let limits = Limits {
                    memory: 8 * block::SIZE,
                    ..Limits::default()
                };
                let outbox = Arc::new(Outbox::new(Spool::new(dir.path().to_owned(), limits)));
                outbox.set_connected(true);
                outbox.set_max_output(MAX_OUTPUT as u32);
                let (pipes, [out, _err]) = open().unwrap();
                let writer = thread::spawn(move || {
                    let mut out = File::from(out);
                    (0..BYTES >> 16).for_each(|_| out.write_all(&[b'x'; 1 << 16]).unwrap());
                });
                let (_keep, quiet) = watch::channel(None);
                let mut pump = Pump::new(7, outbox.clone(), quiet, pipes);
                let (mut blocks, mut bytes, mut read) = (BTreeSet::new(), 0, 0);
                while bytes < BYTES {
                    pump.step().await;
                    while read < outbox.last() {
                        let event = outbox.next(read).await.unwrap();
                        read = event.sequence;
                        let Some(event::Event::Output(output)) = event.event else {
                            panic!()
                        };
                        bytes += output.data.len();
                        if output.data.len() >= FULL_ENOUGH {
                            blocks.insert(output.data.as_ptr() as usize);
                        }
                        // As a node does: some at a time.
                        if read % 4 == 0 {
                            outbox.acknowledge(read);
                        }
                    }
                }
                writer.join().unwrap();
                (blocks.len(), bytes)
            });
            assert_eq!(bytes, BYTES);
            assert!((1..=10).contains(&blocks), "{blocks} blocks");
        }
    }

    type Open = fn() -> io::Result<(Pipes, [OwnedFd; 2])>;

    /// Both kinds of pipes where this system has both.
    const KINDS: [Open; 2] = [Pipes::open, Pipes::unordered];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        #[test]
        fn splitting_keeps_every_byte_of_each_stream(
            sizes in proptest::collection::vec((any::<bool>(), 0_usize..100_000), 0..12),
            seed in any::<u8>(),
        ) {
            let mut fill = seed;
            let writes: Vec<_> = sizes.into_iter().map(|(stderr, len)| {
                (stderr, (0..len).map(|_| { fill = fill.wrapping_mul(5).wrapping_add(1); fill }).collect::<Vec<u8>>())
            }).collect();
            let wrote = |wanted: bool| -> Vec<u8> {
                writes.iter().filter(|write| write.0 == wanted).flat_map(|write| write.1.clone()).collect()
            };
            let (out, err) = (wrote(false), wrote(true));
            for open in KINDS {
                let events = pump_all(open, writes.clone(), None);
                prop_assert!(of(&events, Stream::Stdout) == out);
                prop_assert!(of(&events, Stream::Stderr) == err);
            }
        }

        /// However many short writes wait when the reader comes, each comes after those before it.
        #[cfg(target_os = "linux")]
        #[test]
        fn writes_are_read_in_the_order_in_which_they_were_made(
            sizes in proptest::collection::vec((any::<bool>(), 1_usize..4000), 0..60),
        ) {
            let mut fill = 0_u8;
            let writes: Vec<(bool, Vec<u8>)> = sizes.into_iter().map(|(stderr, len)| {
                fill = fill.wrapping_add(1);
                (stderr, vec![fill; len])
            }).collect();
            let events = runtime().block_on(async {
                let (pipes, writers) = Pipes::open().unwrap();
                let [mut out, mut err] = writers.map(File::from);
                for (stderr, data) in &writes {
                    if *stderr { &mut err } else { &mut out }.write_all(data).unwrap();
                }
                drop((out, err));
                pumped(pipes).await
            });
            let read = events.iter().filter_map(|event| match &event.event {
                Some(event::Event::Output(output)) => Some((output.stream() == Stream::Stderr, output.data.to_vec())),
                _ => None,
            });
            let bytes = |(stderr, data): (bool, Vec<u8>)| data.into_iter().map(move |byte| (stderr, byte));
            prop_assert!(read.flat_map(bytes).eq(writes.into_iter().flat_map(bytes)));
        }
    }

    /// Whoever opens its output anew, or takes `O_DIRECT` off, has writes that are not kept apart; nothing is lost.
    #[cfg(target_os = "linux")]
    #[test]
    fn writes_that_are_not_kept_apart_are_whole() {
        use nix::fcntl::{FcntlArg, OFlag, fcntl};
        runtime().block_on(async {
            let (pipes, [out, err]) = Pipes::open().unwrap();
            let again = File::options()
                .write(true)
                .open(format!("/proc/self/fd/{}", out.as_raw_fd()))
                .unwrap();
            let mut wanted = Vec::new();
            let [out, mut err] = [out, err].map(File::from);
            for round in 0..10_u8 {
                for (file, len) in [(&again, 100), (&out, 3000), (&again, 4000), (&out, 4096)] {
                    let data = vec![round; len];
                    (&mut &*file).write_all(&data).unwrap();
                    wanted.extend(data);
                }
            }
            fcntl(&err, FcntlArg::F_SETFL(OFlag::empty())).unwrap();
            err.write_all(b"plain\n").unwrap();
            drop((out, err, again));
            let events = pumped(pipes).await;
            assert!(of(&events, Stream::Stdout) == wanted);
            assert_eq!(of(&events, Stream::Stderr), b"plain\n");
        });
    }

    #[test]
    fn quiet_output_is_counted_and_its_end_kept() {
        let text: Vec<u8> = (0..300_000_u32).flat_map(|number| number.to_le_bytes()).collect();
        let events = pump_all(Pipes::open, vec![(false, text.clone())], Some(1000));
        assert!(matches!(
            &events[0].event,
            Some(event::Event::OutputSkipped(skipped)) if skipped.bytes == text.len() as u64 - 1000
        ));
        assert_eq!(of(&events, Stream::Stdout), text[text.len() - 1000..]);
    }
}
