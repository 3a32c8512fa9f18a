//! Pipes as every system has them.

use std::{io, os::fd::OwnedFd};

use bytes::BufMut;
use tokio::net::unix::pipe;

#[cfg(target_os = "linux")]
use super::CAPACITY;
use crate::block::Block;

/// Both pipes.
#[derive(Debug)]
pub struct Plain {
    /// `None` after its end.
    ends: [Option<pipe::Receiver>; 2],
    /// Which is looked at first: not the one that was read last.
    next: usize,
}

impl Plain {
    pub(super) fn open() -> io::Result<(Self, [OwnedFd; 2])> {
        let mut ends = [None, None];
        let mut writers = Vec::with_capacity(2);
        for end in &mut ends {
            let (reader, writer) = io::pipe()?;
            widen(&reader);
            *end = Some(pipe::Receiver::from_owned_fd(reader.into())?);
            writers.push(OwnedFd::from(writer));
        }
        let writers = <[OwnedFd; 2]>::try_from(writers).map_err(|_| io::ErrorKind::Other)?;
        Ok((Self { ends, next: 0 }, writers))
    }

    pub(super) async fn ready(&mut self) {
        let [stdout, stderr] = &self.ends;
        tokio::select! {
            () = readable(stdout.as_ref()) => {}
            () = readable(stderr.as_ref()) => {}
        }
    }

    pub(super) fn read(&mut self, block: &mut Block) -> Option<usize> {
        let room = block.room();
        for index in [self.next, 1 - self.next] {
            let Some(pipe) = &self.ends[index] else { continue };
            match pipe.try_read_buf(&mut block.bytes_mut().limit(room)) {
                Ok(0) => self.ends[index] = None,
                Ok(_) => {
                    self.next = 1 - index;
                    return Some(index);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => {
                    // Not known to happen on a pipe; its end at least is the truth.
                    eprintln!("helios-agent: cannot read the output of an exec: {error}");
                    self.ends[index] = None;
                }
            }
        }
        None
    }

    pub(super) fn is_open(&self) -> bool {
        self.ends.iter().any(Option::is_some)
    }

    pub(super) fn into_ends(self) -> Vec<OwnedFd> {
        let ends = self.ends.into_iter().flatten();
        ends.filter_map(|end| end.into_nonblocking_fd().ok()).collect()
    }
}

/// Only a matter of speed: where the system refuses, the pipe stays as it is.
fn widen(pipe: &io::PipeReader) {
    #[cfg(target_os = "linux")]
    {
        use nix::fcntl::{FcntlArg, fcntl};
        let capacity = i32::try_from(CAPACITY).unwrap_or(i32::MAX);
        let _ = fcntl(pipe, FcntlArg::F_SETPIPE_SZ(capacity));
    }
    #[cfg(not(target_os = "linux"))]
    let _ = pipe;
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
