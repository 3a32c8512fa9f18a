//! Reads what a step writes, without ever making it wait for the network while there is room.

use std::{io, sync::Arc, time::Duration};

use bytes::Bytes;
use helios_proto::{
    MAX_OUTPUT,
    v1::{Output, OutputSkipped, event, output::Stream},
};
use tokio::{
    net::unix::pipe,
    sync::watch,
    time::{Instant, sleep_until},
};

use super::tail::Tail;
use crate::outbox::Outbox;

/// Output goes out at once, but not in more than so many pieces: one per this time.
const COALESCE: Duration = Duration::from_millis(5);

/// What is still read of a pipe whose writers were killed. Somebody who holds it and cannot be
/// killed must not keep the step from ending.
const MAX_REST: usize = 4 << 20;

const STREAMS: [Stream; 2] = [Stream::Stdout, Stream::Stderr];

/// Both pipes of one step.
#[derive(Debug)]
pub struct Pump {
    exec_id: u64,
    outbox: Arc<Outbox>,
    /// The bytes to keep once the node has asked for quiet.
    quiet: watch::Receiver<Option<u64>>,
    tail: Tail,
    /// In the order of `STREAMS`; `None` after its end.
    pipes: [Option<pipe::Receiver>; 2],
    /// Read and not sent: `len` bytes of one stream.
    buffer: Box<[u8]>,
    len: usize,
    stream: usize,
    /// When something was sent last.
    sent: Option<Instant>,
    last_read: Instant,
}

impl Pump {
    /// A pump for the output of one exec.
    pub fn new(
        exec_id: u64,
        outbox: Arc<Outbox>,
        quiet: watch::Receiver<Option<u64>>,
        stdout: pipe::Receiver,
        stderr: pipe::Receiver,
    ) -> Self {
        Self {
            exec_id,
            outbox,
            quiet,
            tail: Tail::default(),
            pipes: [Some(stdout), Some(stderr)],
            buffer: vec![0; MAX_OUTPUT].into_boxed_slice(),
            len: 0,
            stream: 0,
            sent: None,
            last_read: Instant::now(),
        }
    }

    /// Somebody may still write.
    pub fn is_open(&self) -> bool {
        self.pipes.iter().any(Option::is_some)
    }

    /// When output was read last.
    pub fn last_read(&self) -> Instant {
        self.last_read
    }

    /// Waits for output, and for room for it, and passes it on. Dropping the future loses nothing.
    pub async fn step(&mut self) {
        // A flood never waits for its pipe: let others run too.
        tokio::task::coop::consume_budget().await;
        self.room().await;
        let due = self.due();
        let [stdout, stderr] = &self.pipes;
        tokio::select! {
            () = sleep_until(due), if self.len > 0 => {}
            () = readable(stdout.as_ref()) => {}
            () = readable(stderr.as_ref()) => {}
        }
        self.read(0);
        self.read(1);
        if self.len > 0 && Instant::now() >= self.due() {
            self.flush();
        }
    }

    /// After the writers were killed: passes on what they left, then ends the output.
    pub async fn finish(mut self) {
        let mut left = MAX_REST;
        while self.is_open() && left > 0 {
            self.room().await;
            let read = self.read(0) + self.read(1);
            if read == 0 {
                break;
            }
            left = left.saturating_sub(read);
        }
        self.flush();
        let (skipped, pieces) = self.tail.take();
        if skipped > 0 {
            self.outbox.push(
                self.exec_id,
                event::Event::OutputSkipped(OutputSkipped { bytes: skipped }),
            );
        }
        for (stream, data) in pieces {
            self.push(stream, data);
        }
    }

    /// The next moment at which the buffer may be sent.
    fn due(&self) -> Instant {
        self.sent.map_or_else(Instant::now, |sent| sent + COALESCE)
    }

    async fn room(&mut self) {
        // Quiet output needs none, and quiet may be asked for while waiting.
        let quiet = async {
            let _ = self.quiet.wait_for(Option::is_some).await;
        };
        tokio::select! {
            biased;
            () = quiet => {}
            () = self.outbox.room() => {}
        }
    }

    /// Takes what one pipe has, up to a full buffer; returns how much that was.
    fn read(&mut self, index: usize) -> usize {
        let Some(pipe) = self.pipes[index].take() else { return 0 };
        if self.stream != index {
            self.flush();
            self.stream = index;
        }
        let mut total = 0;
        loop {
            match pipe.try_read(&mut self.buffer[self.len..]) {
                Ok(0) => return total,
                Ok(read) => {
                    self.len += read;
                    total += read;
                    self.last_read = Instant::now();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => {
                    // Not known to happen on a pipe; its end at least is the truth.
                    eprintln!("helios-agent: cannot read the output of exec {}: {error}", self.exec_id);
                    return total;
                }
            }
            if self.len == self.buffer.len() {
                self.flush();
                break;
            }
        }
        self.pipes[index] = Some(pipe);
        total
    }

    fn flush(&mut self) {
        if self.len == 0 {
            return;
        }
        let data = &self.buffer[..self.len];
        let quiet = *self.quiet.borrow();
        match quiet {
            Some(limit) => self.tail.push(STREAMS[self.stream], data, limit),
            None => self.push(STREAMS[self.stream], Bytes::copy_from_slice(data)),
        }
        self.len = 0;
        self.sent = Some(Instant::now());
    }

    fn push(&self, stream: Stream, data: Bytes) {
        self.outbox.push(
            self.exec_id,
            event::Event::Output(Output {
                stream: stream.into(),
                data,
            }),
        );
    }
}

/// Resolves when the pipe has something to say, its end included; never for a closed one.
async fn readable(pipe: Option<&pipe::Receiver>) {
    match pipe {
        Some(pipe) => {
            // An error comes back from the read that follows.
            let _ = pipe.readable().await;
        }
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Write as _, thread};

    use helios_proto::v1::Event;
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

    fn pump_all(writes: Vec<(bool, Vec<u8>)>, quiet: Option<u64>) -> Vec<Event> {
        runtime().block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let limits = Limits {
                memory: 256 << 20,
                ..Limits::default()
            };
            let outbox = Arc::new(Outbox::new(Spool::new(dir.path().to_owned(), limits)));
            let (out, mut out_writer) = io::pipe().unwrap();
            let (err, mut err_writer) = io::pipe().unwrap();
            let writer = thread::spawn(move || {
                for (stderr, data) in writes {
                    if stderr {
                        err_writer.write_all(&data)
                    } else {
                        out_writer.write_all(&data)
                    }
                    .unwrap();
                }
            });
            let (_keep, quiet) = watch::channel(quiet);
            let out = pipe::Receiver::from_owned_fd(out.into()).unwrap();
            let err = pipe::Receiver::from_owned_fd(err.into()).unwrap();
            let mut pump = Pump::new(7, outbox.clone(), quiet, out, err);
            while pump.is_open() {
                pump.step().await;
            }
            pump.finish().await;
            writer.join().unwrap();
            all(&outbox).await
        })
    }

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
            let events = pump_all(writes, None);
            prop_assert!(of(&events, Stream::Stdout) == out);
            prop_assert!(of(&events, Stream::Stderr) == err);
        }
    }

    #[test]
    fn quiet_output_is_counted_and_its_end_kept() {
        let text: Vec<u8> = (0..300_000_u32).flat_map(|number| number.to_le_bytes()).collect();
        let events = pump_all(vec![(false, text.clone())], Some(1000));
        assert!(matches!(
            &events[0].event,
            Some(event::Event::OutputSkipped(skipped)) if skipped.bytes == text.len() as u64 - 1000
        ));
        assert_eq!(of(&events, Stream::Stdout), text[text.len() - 1000..]);
    }
}
