//! Two pipes of Linux whose writes are read in the order in which they were made, however late the reader comes.
//!
//! - `O_DIRECT` of pipe2(2) keeps writes apart: a read returns one write, or one page of a longer one.
//! - `F_SETSIG` with `O_ASYNC` of fcntl(2) queues a real-time signal for each write, with the pipe's descriptor; the
//!   queue has the order of the writes, over both pipes. A signalfd(2) reads it.
//!
//! So the queue says which pipe the next write is in, and one read takes it out. A writer that waits for room sends a
//! signal too, before it writes; it is known by the pipe's being full.
//!
//! Nothing is ever lost by a wrong guess: at the worst a write is taken before its turn. Guesses are needed for writes
//! of more than a page (the next packet may belong to them or to another write), for writers that took `O_DIRECT` off
//! or opened `/dev/stdout` anew (their writes are not kept apart), and when the system's queue of signals is full.
//!
//! The signals are sent to the one thread that reads, and blocked there: no other ever sees them.

mod packets;

use std::{
    collections::VecDeque,
    fmt, io,
    mem::size_of,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use nix::libc;
use tokio::{
    io::{Interest, unix::AsyncFd},
    time::{Instant, sleep_until},
};

use self::packets::Packets;
use super::{CAPACITY, ROOM};
use crate::block::Block;

/// What a packet holds at most.
const PAGE: usize = 4096;
const _: () = assert!(PAGE <= ROOM, "what does not fit of a packet is lost");

/// So many packets a pipe holds, and so many are taken for one write before the other pipe has its turn.
const PACKETS: usize = CAPACITY / PAGE;

/// What lies in a pipe without a signal is given so long to be announced: its writer may have lost the processor
/// between the two.
const UNANNOUNCED: Duration = Duration::from_millis(5);
/// After so long without a signal it is looked whether there is something all the same.
const UNSEEN: Duration = Duration::from_millis(500);

/// How many signals are read at once.
const BATCH: usize = 64;

/// `F_OWNER_TID` of `<fcntl.h>`: the owner is a thread.
const F_OWNER_TID: libc::c_int = 0;
/// `F_SETSIG` and `F_SETOWN_EX` of `<fcntl.h>`.
const F_SETSIG: libc::c_int = 10;
const F_SETOWN_EX: libc::c_int = 15;

/// `struct f_owner_ex` of `<fcntl.h>`.
#[repr(C)]
struct Owner {
    kind: libc::c_int,
    id: libc::pid_t,
}

/// Both pipes.
pub struct Ordered {
    /// `None` after its end.
    ends: [Option<OwnedFd>; 2],
    /// Before `number`, which may be another's once it is dropped.
    signals: AsyncFd<OwnedFd>,
    number: Number,
    /// The write that is being read: from which pipe, and how many packets are still taken for it.
    turn: Option<(usize, usize)>,
    /// To which pipes the writes after it were made, oldest first.
    writes: VecDeque<usize>,
    /// How many of `writes` are whose.
    waiting: [usize; 2],
    /// When what is there without a signal is read.
    unannounced: Option<Instant>,
    sweeping: bool,
    batch: Box<[libc::signalfd_siginfo; BATCH]>,
    packets: Packets,
}

impl fmt::Debug for Ordered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ordered")
            .field("ends", &self.ends)
            .finish_non_exhaustive()
    }
}

impl Ordered {
    pub(super) fn open() -> io::Result<(Self, [OwnedFd; 2])> {
        let number = Number::take().ok_or_else(|| io::Error::other("no real-time signal is free"))?;
        // SAFETY: an `OwnedFd` is a valid descriptor that only its drop closes; the `AsyncFd` owns it, and `as_raw_fd`
        // always names that one.
        let signals = unsafe { AsyncFd::register_with_interest(number.block()?, Interest::READABLE) }?;
        let (stdout, stdout_writer) = number.pipe()?;
        let (stderr, stderr_writer) = number.pipe()?;
        let mut ordered = Self {
            ends: [Some(stdout), Some(stderr)],
            signals,
            number,
            turn: None,
            writes: VecDeque::with_capacity(2 * PACKETS),
            waiting: [0; 2],
            unannounced: None,
            sweeping: false,
            // SAFETY: plain data for which zeroes are valid.
            batch: Box::new(unsafe { std::mem::zeroed() }),
            packets: Packets::new()?,
        };
        // Signals of whoever had the number before.
        ordered.gather()?;
        (ordered.waiting, ordered.writes) = ([0; 2], VecDeque::with_capacity(2 * PACKETS));
        Ok((ordered, [stdout_writer, stderr_writer]))
    }

    pub(super) async fn ready(&mut self) {
        if self.turn.is_some() || !self.writes.is_empty() || self.packets.has_excess() {
            return;
        }
        if !self.is_open() {
            return std::future::pending().await;
        }
        let announced = async {
            // An error comes back from the read that follows.
            let _ = self.signals.readable().await;
        };
        // Another command of this agent may read the one notice (SIGIO) of a queue of signals that was full, so nobody
        // waits for signals alone.
        let due = self.unannounced.unwrap_or_else(|| Instant::now() + UNSEEN);
        tokio::select! {
            () = announced => {}
            () = sleep_until(due) => {}
        }
    }

    pub(super) fn read(&mut self, block: &mut Block) -> Option<usize> {
        if let Some(index) = self.packets.take_excess(block) {
            return Some(index);
        }
        loop {
            let Some((index, packets)) = self.next() else {
                if self.look() {
                    continue;
                }
                return None;
            };
            let is_long = packets < PACKETS;
            let take = |end| self.packets.take(index, end, is_long, block);
            match self.ends[index].as_ref().map(take) {
                None => {}
                Some(Ok(0)) => self.ends[index] = None,
                Some(Ok(read)) => {
                    // A full packet may be the beginning of a longer write. Without end it has no right to the turn.
                    match packets {
                        _ if read < PAGE => {}
                        0 | 1 => self.add(index),
                        _ => self.turn = Some((index, packets - 1)),
                    }
                    return Some(index);
                }
                Some(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => {}
                Some(Err(error)) => {
                    // Not known to happen on a pipe; its end at least is the truth.
                    eprintln!("helios-agent: cannot read the output of an exec: {error}");
                    self.ends[index] = None;
                }
            }
        }
    }

    pub(super) fn sweep(&mut self) {
        self.sweeping = true;
    }

    pub(super) fn is_open(&self) -> bool {
        self.ends.iter().any(Option::is_some) || self.packets.has_excess()
    }

    pub(super) fn into_ends(mut self) -> Vec<OwnedFd> {
        let ends: Vec<OwnedFd> = self.ends.iter_mut().filter_map(Option::take).collect();
        for end in &ends {
            // Nobody reads the signals any more.
            let _ = set(end.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK);
        }
        ends
    }

    /// From which pipe to read now, and how many packets at most belong to the same write.
    fn next(&mut self) -> Option<(usize, usize)> {
        if let Some(turn) = self.turn.take() {
            return Some(turn);
        }
        // Before each read and not only when there is nothing left: while a pipe is full its writer's next signal is
        // known to be none of a write, and the read makes room.
        if let Err(error) = self.gather() {
            eprintln!("helios-agent: cannot read which output came first: {error}");
        }
        let index = self.writes.pop_front()?;
        self.waiting[index] -= 1;
        Some((index, PACKETS))
    }

    fn add(&mut self, index: usize) {
        // More writes than the pipe holds, and what was moved out of it: the writer only says that it waits.
        let most = if self.packets.is_aside(index) {
            2 * PACKETS
        } else {
            PACKETS
        };
        if self.waiting[index] < most {
            self.waiting[index] += 1;
            self.writes.push_back(index);
        }
    }

    /// Finds out what is to be read though nobody has announced it; whether there is something.
    fn look(&mut self) -> bool {
        // Seen first, so that all that was announced of it is found now.
        let states = [0, 1].map(|index| self.state(index));
        // What the runtime believes to be readable was read to its end.
        let empty: io::Result<()> = self
            .signals
            .try_io(Interest::READABLE, |_| Err(io::ErrorKind::WouldBlock.into()));
        let _ = empty;
        if self.gather().is_ok() && !self.writes.is_empty() {
            self.unannounced = None;
            return true;
        }
        // After the leader's end there is no turn to wait for.
        let is_due = self.sweeping || self.unannounced.is_some_and(|due| due <= Instant::now());
        let mut unannounced = None;
        for (index, state) in states.into_iter().enumerate() {
            if is_due && state != 0 || state & (libc::POLLHUP | libc::POLLERR) != 0 {
                self.add(index);
            } else if state != 0 {
                unannounced = self.unannounced.or(Some(Instant::now() + UNANNOUNCED));
            }
        }
        self.unannounced = unannounced;
        !self.writes.is_empty()
    }

    /// What poll(2) says of one pipe.
    fn state(&self, index: usize) -> libc::c_short {
        if self.packets.is_aside(index) {
            return libc::POLLIN;
        }
        let Some(end) = &self.ends[index] else { return 0 };
        let mut state = libc::pollfd {
            fd: end.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one structure, which outlives the call.
        let polled = unsafe { libc::poll(&raw mut state, 1, 0) };
        if polled > 0 { state.revents } else { 0 }
    }

    fn index(&self, descriptor: i32) -> Option<usize> {
        let is_it = |end: &Option<OwnedFd>| end.as_ref().is_some_and(|end| end.as_raw_fd() == descriptor);
        self.ends.iter().position(is_it)
    }

    /// Takes the signals that are there.
    fn gather(&mut self) -> io::Result<()> {
        loop {
            let wanted = size_of_val(&*self.batch);
            // SAFETY: the array outlives the call and holds as many bytes as may be written.
            let read = unsafe { libc::read(self.signals.as_raw_fd(), self.batch.as_mut_ptr().cast(), wanted) };
            let Ok(bytes) = usize::try_from(read) else {
                let error = io::Error::last_os_error();
                return match error.kind() {
                    io::ErrorKind::WouldBlock => Ok(()),
                    _ => Err(error),
                };
            };
            let count = bytes / size_of::<libc::signalfd_siginfo>();
            for at in 0..count {
                let signal = &self.batch[at];
                match self
                    .index(signal.ssi_fd)
                    .filter(|_| i32::try_from(signal.ssi_signo) == Ok(self.number.0))
                {
                    Some(index) => self.add(index),
                    // The system's queue was full, a pipe that has ended, or somebody sends us signals.
                    None => [0, 1].into_iter().for_each(|index| self.add(index)),
                }
            }
            if count < BATCH {
                return Ok(());
            }
        }
    }
}

/// A real-time signal of this process that nobody else uses.
#[derive(Debug)]
struct Number(libc::c_int);

/// A bit for each signal that is taken.
static TAKEN: AtomicU64 = AtomicU64::new(0);

impl Number {
    fn take() -> Option<Self> {
        (libc::SIGRTMIN()..=libc::SIGRTMAX()).find_map(|number| {
            let bit = 1_u64.checked_shl(number.unsigned_abs().checked_sub(1)?)?;
            // Made only when it is ours: dropping one gives the signal back.
            (TAKEN.fetch_or(bit, Ordering::AcqRel) & bit == 0).then(|| Self(number))
        })
    }

    /// Blocks the signal in this thread and returns where it is read from. So is SIGIO, which Linux sends in place of
    /// a signal that its queue has no room for.
    fn block(&self) -> io::Result<OwnedFd> {
        // SAFETY: the set is plain data that outlives every call; signalfd(2) makes a descriptor that is nobody's yet.
        unsafe {
            let mut set: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut set);
            libc::sigaddset(&raw mut set, self.0);
            libc::sigaddset(&raw mut set, libc::SIGIO);
            let error = libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
            if error != 0 {
                return Err(io::Error::from_raw_os_error(error));
            }
            let fd = libc::signalfd(-1, &raw const set, libc::SFD_NONBLOCK | libc::SFD_CLOEXEC);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(OwnedFd::from_raw_fd(fd))
        }
    }

    /// A pipe whose writes are kept apart and announced: its end to read from, then the one to write to.
    fn pipe(&self) -> io::Result<(OwnedFd, OwnedFd)> {
        let mut both = [0; 2];
        // SAFETY: pipe2(2) fills the array with two descriptors that are nobody's yet.
        let (reader, writer) = unsafe {
            if libc::pipe2(both.as_mut_ptr(), libc::O_CLOEXEC | libc::O_DIRECT) < 0 {
                return Err(io::Error::last_os_error());
            }
            (OwnedFd::from_raw_fd(both[0]), OwnedFd::from_raw_fd(both[1]))
        };
        let fd = reader.as_raw_fd();
        let capacity = i32::try_from(CAPACITY).map_err(io::Error::other)?;
        // Where the system refuses, the pipe stays as it is.
        let _ = set(fd, libc::F_SETPIPE_SZ, capacity);
        let owner = Owner {
            kind: F_OWNER_TID,
            id: nix::unistd::gettid().as_raw(),
        };
        // SAFETY: the structure outlives the call.
        if unsafe { libc::fcntl(fd, F_SETOWN_EX, &raw const owner) } < 0 {
            return Err(io::Error::last_os_error());
        }
        set(fd, F_SETSIG, self.0)?;
        set(fd, libc::F_SETFL, libc::O_NONBLOCK | libc::O_ASYNC)?;
        Ok((reader, writer))
    }
}

impl Drop for Number {
    fn drop(&mut self) {
        if let Some(bit) = self
            .0
            .unsigned_abs()
            .checked_sub(1)
            .and_then(|bit| 1_u64.checked_shl(bit))
        {
            TAKEN.fetch_and(!bit, Ordering::AcqRel);
        }
    }
}

/// fcntl(2) with a number.
fn set(fd: RawFd, what: libc::c_int, value: libc::c_int) -> io::Result<()> {
    // SAFETY: three integers.
    match unsafe { libc::fcntl(fd, what, value) } {
        ..0 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whoever asks for a signal that is taken gets another one, and the one who has it keeps it.
    #[test]
    fn nobody_gets_a_signal_that_is_in_use() {
        let mut numbers: Vec<Number> = (0..6).map(|_| Number::take().expect("a free signal")).collect();
        numbers.remove(2);
        numbers.extend((0..2).map(|_| Number::take().expect("a free signal")));
        let mut signals: Vec<_> = numbers.iter().map(|number| number.0).collect();
        signals.sort_unstable();
        signals.dedup();
        assert_eq!(signals.len(), numbers.len());
    }
}
