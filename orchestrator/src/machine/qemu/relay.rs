//! `helios-ci relay`: the two small processes beside a QEMU guest. Both outlive the daemon, hold no
//! secret and know nothing of what passes through them.
//!
//! *Relay*: QEMU starts one for each connection that the guest makes to a forward, with the
//! connection as its standard input, output and error. It carries bytes to a UNIX socket on which
//! the daemon listens and back. It never writes a message of its own: that would be the guest's to
//! read.
//!
//! *Recorder*: carries the guest's serial port into the console's segments. It is a process of its
//! own because the console must be bounded and kept while the daemon is away. QEMU's `file` back
//! end has no bound, its ring buffer dies with QEMU, and both are needed most when a guest dies.
//! What people type comes over a socket of its own and is passed on by another thread, with a time limit:
//! a guest that does not read cannot stop the recording, and nobody who types can stop the guest.

use std::{
    fs::File,
    io::{self, Read, Write},
    net::Shutdown,
    os::{
        fd::AsFd,
        unix::net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use crate::{
    files,
    machine::{INPUT_LIMIT, console},
};

/// One copy moves at most this much: throughput falls sharply below.
const BLOCK: usize = 64 * 1024;
/// How long the recorder waits for QEMU to make its socket.
const SOCKET_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the recorder waits for a lock that somebody else holds.
const TURN: Duration = Duration::from_millis(500);
/// The most that is kept of a console.
pub const CONSOLE_CAP: u64 = 4 << 20;
/// Where a recorder listens for what people type, beside its console.
const INPUT: &str = "input.sock";
/// A guest that takes nothing for so long does not read its console; what was typed is lost then.
const GUEST_READS: Duration = Duration::from_secs(2);
/// Longer than it, so that the recorder's own answer arrives first.
const ANSWER: Duration = Duration::from_secs(5);
/// What a recorder answers when it has passed everything on.
const TAKEN: &[u8] = b"ok";

/// Held by a console's recorder for as long as it lives.
const LOCK: &str = "recorder.lock";

/// The arguments of `helios-ci relay`.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// The UNIX socket at the other end.
    pub socket: PathBuf,
    /// Record what comes from the socket into this console directory instead.
    #[arg(long)]
    pub record: Option<PathBuf>,
}

/// Does what the arguments say, silently.
#[must_use]
pub fn main(args: &Args) -> ExitCode {
    let result = match &args.record {
        Some(dir) => record(&args.socket, dir, CONSOLE_CAP),
        None => run(&args.socket),
    };
    if result.is_ok() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Carries bytes between standard input and output and a UNIX socket until the socket's end closes,
/// or both have said all.
///
/// # Errors
/// When nobody listens at the socket, or either side breaks.
pub fn run(socket: &Path) -> io::Result<()> {
    let stream = UnixStream::connect(socket)?;
    let input = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let output = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    carry(input, output, stream)
}

fn carry(mut input: File, mut output: File, stream: UnixStream) -> io::Result<()> {
    let mut to_daemon = stream.try_clone()?;
    // Not joined: when the daemon's side ends there is nobody left to carry to, and the thread may
    // be waiting for the guest for ever. It ends with the process.
    thread::spawn(move || {
        let _broken_or_ended = copy(&mut input, &mut to_daemon);
        let _already_closed = to_daemon.shutdown(Shutdown::Write);
    });
    copy(&mut &stream, &mut output)
}

fn copy(from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut block = vec![0; BLOCK];
    loop {
        match from.read(&mut block) {
            Ok(0) => return Ok(()),
            Ok(n) => to.write_all(&block[..n])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Records a guest's serial port into a console directory until QEMU ends. At once done when
/// another recorder is at work there.
///
/// # Errors
/// When QEMU does not make its socket within half a minute, or the console cannot be written.
pub fn record(socket: &Path, dir: &Path, cap: u64) -> io::Result<()> {
    // Who only asks whether there is a recorder holds the lock for an instant; a recorder keeps it.
    let until = Instant::now() + TURN;
    let _lock = loop {
        match lock(dir)? {
            Some(lock) => break lock,
            None if Instant::now() > until => return Ok(()),
            None => pause(),
        }
    };
    let mut writer = console::Writer::open(dir, cap)?;
    let until = Instant::now() + SOCKET_TIMEOUT;
    let mut stream = loop {
        match UnixStream::connect(socket) {
            Ok(stream) => break stream,
            Err(error) if Instant::now() > until => return Err(error),
            Err(_) => pause(),
        }
    };
    // The time limit is for writing alone; reading waits for as long as QEMU lives.
    stream.set_write_timeout(Some(GUEST_READS))?;
    listen_for_input(&input_socket(dir), stream.try_clone()?)?;
    let mut block = vec![0; BLOCK];
    loop {
        match stream.read(&mut block) {
            Ok(0) => return Ok(()),
            Ok(n) => writer.write(&block[..n])?,
            // QEMU ended before its guest had read everything that was typed.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Where the recorder of a console listens for what people type.
#[must_use]
pub fn input_socket(console: &Path) -> PathBuf {
    console.with_file_name(INPUT)
}

/// Takes what people type, one after another, on a thread that ends with the process.
fn listen_for_input(socket: &Path, guest: UnixStream) -> io::Result<()> {
    // Who holds the console's lock is its only recorder, so what lies there is a dead one's.
    match std::fs::remove_file(socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(socket)?;
    thread::spawn(move || {
        for typist in listener.incoming().flatten() {
            // Its failure is the typist's, who hears no answer.
            let _not_taken = pass_on(typist, &guest);
        }
    });
    Ok(())
}

fn pass_on(mut typist: UnixStream, mut guest: &UnixStream) -> io::Result<()> {
    typist.set_read_timeout(Some(GUEST_READS))?;
    let mut bytes = Vec::new();
    let limit = u64::try_from(INPUT_LIMIT).unwrap_or(u64::MAX);
    (&mut typist).take(limit).read_to_end(&mut bytes)?;
    guest.write_all(&bytes)?;
    typist.write_all(TAKEN)
}

/// Types into the console whose recorder listens at `socket`.
///
/// # Errors
/// When no recorder listens there, or the guest does not read its console.
pub fn type_into(socket: &Path, bytes: &[u8]) -> io::Result<()> {
    let until = Instant::now() + TURN;
    let mut recorder = loop {
        match UnixStream::connect(socket) {
            Ok(recorder) => break recorder,
            // One that was started just now makes its socket in a moment.
            Err(_) if Instant::now() < until => pause(),
            Err(error) => {
                let reason =
                    format!("its console's recorder takes no input ({error}); restart the daemon and try again");
                return Err(io::Error::new(error.kind(), reason));
            }
        }
    };
    recorder.set_read_timeout(Some(ANSWER))?;
    recorder.write_all(bytes)?;
    recorder.shutdown(Shutdown::Write)?;
    let mut answer = Vec::new();
    match recorder.read_to_end(&mut answer) {
        Ok(_) if answer == TAKEN => Ok(()),
        _ => Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "the guest does not read its console; what was typed is lost",
        )),
    }
}

/// Interval between two polls of what announces no change.
#[allow(
    clippy::disallowed_methods,
    reason = "a socket file that another program makes can only be polled"
)]
fn pause() {
    thread::sleep(Duration::from_millis(10));
}

/// Whether a recorder is at work on a console.
///
/// # Errors
/// As the file system's.
pub fn is_recorded(dir: &Path) -> io::Result<bool> {
    Ok(lock(dir)?.is_none())
}

/// The lock of a console, unless somebody holds it.
fn lock(dir: &Path) -> io::Result<Option<File>> {
    files::private_dir(dir)?;
    let file = File::options().create(true).append(true).open(dir.join(LOCK))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(std::fs::TryLockError::WouldBlock) => Ok(None),
        Err(std::fs::TryLockError::Error(error)) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::os::{fd::OwnedFd, unix::net::UnixListener};

    use super::*;
    use crate::deadline;

    /// A relay between a guest's connection and a daemon's.
    fn relay() -> (UnixStream, UnixStream, thread::JoinHandle<io::Result<()>>) {
        let (guest, inner) = UnixStream::pair().unwrap();
        let (daemon, other) = UnixStream::pair().unwrap();
        let input = File::from(OwnedFd::from(inner.try_clone().unwrap()));
        let output = File::from(OwnedFd::from(inner));
        (guest, daemon, thread::spawn(move || carry(input, output, other)))
    }

    #[test]
    fn bytes_pass_both_ways_and_a_half_close_lets_the_answer_through() {
        let (mut guest, mut daemon, relay) = relay();
        let sent: Vec<u8> = (0..3_000_000_u32).map(|i| (i % 251) as u8).collect();
        let expected = sent.clone();
        let mut writer = guest.try_clone().unwrap();
        let push = thread::spawn(move || {
            writer.write_all(&sent).unwrap();
            writer.shutdown(Shutdown::Write).unwrap();
        });
        let mut got = Vec::new();
        daemon.read_to_end(&mut got).unwrap();
        push.join().unwrap();
        assert_eq!(got, expected);
        let answer = thread::spawn(move || daemon.write_all(&got).unwrap());
        let mut back = vec![0; expected.len()];
        guest.read_exact(&mut back).unwrap();
        answer.join().unwrap();
        assert_eq!(back, expected);
        relay.join().unwrap().unwrap();
    }

    #[test]
    fn a_daemon_that_goes_away_ends_the_relay_though_the_guest_is_silent() {
        let (_guest, daemon, relay) = relay();
        drop(daemon);
        relay.join().unwrap().unwrap();
    }

    #[test]
    fn nobody_at_the_socket_is_an_error() {
        assert!(run(Path::new("/nonexistent/socket")).is_err());
    }

    #[test]
    fn what_is_typed_reaches_the_guest_and_one_that_does_not_read_is_recorded_on() {
        let dir = tempfile::tempdir().unwrap();
        let (socket, console) = (dir.path().join("s"), dir.path().join("console"));
        let input = input_socket(&console);
        assert!(type_into(&input, b"x").is_err(), "nobody records");
        let listener = UnixListener::bind(&socket).unwrap();
        let recorder = thread::spawn({
            let (socket, console) = (socket.clone(), console.clone());
            move || super::record(&socket, &console, 1 << 20)
        });
        let (mut qemu, _) = listener.accept().unwrap();
        type_into(&input, b"").unwrap();
        type_into(&input, b"uname -a\r\0\xff").unwrap();
        let mut typed = [0; 11];
        qemu.read_exact(&mut typed).unwrap();
        assert_eq!(&typed, b"uname -a\r\0\xff");
        // Its socket's buffer is full some time, for the guest reads nothing more.
        let refused = (0..1000).find_map(|_| type_into(&input, &[b'y'; INPUT_LIMIT]).err());
        assert!(refused.unwrap().to_string().contains("does not read its console"));
        qemu.write_all(b"still talking").unwrap();
        let until = Instant::now() + deadline::PROMPT;
        while console::read(&console, 0).unwrap().bytes != b"still talking" {
            assert!(Instant::now() < until, "the recording stopped");
            pause();
        }
        drop(qemu);
        recorder.join().unwrap().unwrap();
    }

    #[test]
    fn one_recorder_at_a_time_writes_and_resumes_where_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let (socket, console) = (dir.path().join("s"), dir.path().join("console"));
        let listener = UnixListener::bind(&socket).unwrap();
        let record =
            |(socket, console): (PathBuf, PathBuf)| thread::spawn(move || super::record(&socket, &console, 1000));
        for text in ["one ", "two"] {
            let recorder = record((socket.clone(), console.clone()));
            let (mut qemu, _) = listener.accept().unwrap();
            assert!(is_recorded(&console).unwrap());
            record((socket.clone(), console.clone())).join().unwrap().unwrap();
            qemu.write_all(text.as_bytes()).unwrap();
            drop(qemu);
            recorder.join().unwrap().unwrap();
        }
        assert!(!is_recorded(&console).unwrap());
        assert_eq!(console::read(&console, 0).unwrap().bytes, b"one two");
    }
}
