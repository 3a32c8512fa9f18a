//! An end before the end: a signal while the demo goes on must leave no machine, no daemon and no file.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::Notify,
};

use crate::support::pause;

/// What a signal does: while the demo shows things it ends everything at once, later it ends the wait.
#[derive(Debug, Default)]
pub struct Stop {
    dir: OnceLock<PathBuf>,
    kept: AtomicBool,
    asked: Notify,
}

impl Stop {
    /// Everything of the demo lies below this folder, and each of its processes names it.
    pub fn owns(&self, dir: &Path) {
        self.dir.set(dir.to_owned()).ok();
    }

    /// Returns once a person has ended what is kept running.
    pub async fn asked(&self) {
        self.kept.store(true, Ordering::SeqCst);
        self.asked.notified().await;
    }

    /// Waits for SIGINT or SIGTERM, and returns when nothing of the demo is left. Never returns for one that ends what is
    /// kept running, because that ends in order.
    pub async fn signalled(&self) {
        let mut interrupt = signal(SignalKind::interrupt()).expect("signals can be waited for");
        let mut terminate = signal(SignalKind::terminate()).expect("signals can be waited for");
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if !self.kept.load(Ordering::SeqCst) {
                break;
            }
            self.asked.notify_one();
        }
        if let Some(dir) = self.dir.get() {
            end_all(dir);
        }
    }
}

/// Kills every other process that names the folder, and removes it. The daemon may start one more before it is killed.
fn end_all(dir: &Path) {
    let ours = dir.display().to_string();
    loop {
        let mut found = false;
        for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let cmdline = fs::read(process.path().join("cmdline")).unwrap_or_default();
            let pid = process.file_name().to_string_lossy().parse().unwrap_or(0);
            let is_ours = String::from_utf8_lossy(&cmdline).contains(&ours);
            if is_ours && pid > 1 && Pid::from_raw(pid) != Pid::this() {
                found |= kill(Pid::from_raw(pid), Signal::SIGKILL).is_ok();
            }
        }
        if !found {
            break;
        }
        pause();
    }
    fs::remove_dir_all(dir).ok();
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    #[allow(clippy::disallowed_methods, reason = "a stand-in for a machine's process")]
    fn nothing_is_left_of_what_names_the_folder() {
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(dir.path().join("disk"), "").unwrap();
        let start = |dir: &Path| {
            let script = "trap '' INT TERM; while :; do sleep 60; done";
            Command::new("sh")
                .args(["-c", script, &dir.display().to_string()])
                .spawn()
                .unwrap()
        };
        let (mut ours, mut others) = (start(dir.path()), start(other.path()));
        let reaped = std::thread::spawn(move || ours.wait().unwrap());
        end_all(dir.path());
        assert!(!reaped.join().unwrap().success());
        assert!(!dir.path().exists());
        assert!(others.try_wait().unwrap().is_none(), "a stranger goes on");
        others.kill().unwrap();
        others.wait().unwrap();
    }
}
