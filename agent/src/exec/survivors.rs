//! What execs that have ended have left running: a server that later steps talk to, or something forgotten. It lives
//! until the job ends.

use std::{
    io,
    os::fd::OwnedFd,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use helios_proto::v1;
use tokio::net::unix::pipe;

use super::{pipes::Pipes, tree::Tree};

/// So many are named; the others are counted.
const NAMED: usize = 20;

/// The trees of execs that have ended, and what is still written to their pipes.
#[derive(Debug, Default)]
pub struct Survivors {
    /// A plain mutex: nothing is awaited while it is held.
    trees: Mutex<Vec<Tree>>,
    unread: Arc<AtomicU64>,
}

impl Survivors {
    /// Takes a tree whose leader has ended, with its pipes. Returns how many processes live on in it.
    pub fn adopt(&self, mut tree: Tree, pipes: Pipes) -> u32 {
        // Read on, as a server whose log goes to its step's output must neither stop nor die of a broken pipe.
        for end in pipes.into_ends() {
            tokio::spawn(discard(end, Arc::clone(&self.unread)));
        }
        let count = tree.members().map_or(0, |members| members.len());
        tree.unroot();
        let mut trees = self.lock();
        // A tree whose last process has ended is of no use.
        trees.retain(|tree| !tree.is_empty());
        if count > 0 {
            trees.push(tree);
        }
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// Kills all of them and says which they were.
    pub async fn end(&self) -> v1::ProcessesEnded {
        let trees = std::mem::take(&mut *self.lock());
        let mut ended = v1::ProcessesEnded::default();
        for tree in &trees {
            let members = tree.members().unwrap_or_default();
            let room = NAMED - ended.processes.len();
            ended.processes.extend(members.into_iter().take(room).map(named));
        }
        let cleared = trees.into_iter().map(|mut tree| async move {
            match tree.clear().await {
                Ok(count) => (count, 0),
                Err(error) => {
                    eprintln!("helios-agent: processes of an exec that has ended stay: {error}");
                    let left = tree.members().map_or(0, |members| members.len());
                    let left = u32::try_from(left).unwrap_or(u32::MAX);
                    (left, left)
                }
            }
        });
        for (count, remaining) in futures::future::join_all(cleared).await {
            ended.count = ended.count.saturating_add(count);
            ended.remaining = ended.remaining.saturating_add(remaining);
        }
        ended.unread = self.unread.swap(0, Ordering::Relaxed);
        ended
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Tree>> {
        self.trees.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn named(pid: i32) -> v1::processes_ended::Process {
    v1::processes_ended::Process {
        pid: pid.unsigned_abs(),
        name: name(pid).unwrap_or_default(),
    }
}

#[cfg(target_os = "linux")]
fn name(pid: i32) -> io::Result<String> {
    let name = std::fs::read(format!("/proc/{pid}/comm"))?;
    Ok(String::from_utf8_lossy(&name).trim_end().to_owned())
}

#[cfg(not(target_os = "linux"))]
fn name(pid: i32) -> io::Result<String> {
    let program = std::fs::read_link(format!("/proc/{pid}/path/a.out"))?;
    Ok(program.file_name().unwrap_or_default().to_string_lossy().into_owned())
}

/// Reads a pipe to its end and counts what comes.
async fn discard(end: OwnedFd, unread: Arc<AtomicU64>) {
    let Ok(pipe) = pipe::Receiver::from_owned_fd(end) else {
        return;
    };
    let mut buffer = [0; 8192];
    while pipe.readable().await.is_ok() {
        match pipe.try_read(&mut buffer) {
            Ok(0) => return,
            Ok(read) => {
                unread.fetch_add(read as u64, Ordering::Relaxed);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
        tokio::task::coop::consume_budget().await;
    }
}
