//! The cgroup of a process machine, below the daemon's own: the agent makes one for each step in it, so that the steps'
//! processes are found, and killed, however many they make meanwhile. The agent itself stays outside; who it is is known.
//! Where the daemon may not make cgroups there is none, and steps are found by their marker (`proc`), as are processes that
//! have left theirs.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::proc::Process;
use crate::model::names::MachineName;

/// The variable that tells an agent in which cgroup those of its steps go.
pub const VARIABLE: &str = "HELIOS_CI_CGROUP";

/// A cgroup of version 2, whether or not it exists.
#[derive(Debug)]
pub struct Cgroup(PathBuf);

impl Cgroup {
    /// The one at this path.
    #[must_use]
    pub fn at(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// Where that of a new machine is to be; none where this process is in no cgroup of version 2.
    #[must_use]
    pub fn path_for(name: &MachineName) -> Option<PathBuf> {
        let root = mount_point(&fs::read_to_string("/proc/self/mountinfo").ok()?)?;
        let own = fs::read_to_string("/proc/self/cgroup").ok()?;
        let own = own.lines().find_map(|line| line.strip_prefix("0::"))?;
        Some(root.join(own.trim_start_matches('/')).join(name.as_str()))
    }

    /// Makes it, if it is not there.
    ///
    /// # Errors
    /// As the system's: the daemon may not.
    pub fn make(&self) -> io::Result<()> {
        match fs::create_dir(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            made => made,
        }
    }

    /// Whether an agent keeps steps in it. One that cannot, or that has ended in order, has nothing there.
    ///
    /// # Errors
    /// As the system's.
    pub fn is_used(&self) -> io::Result<bool> {
        Ok(below(&self.0)?.len() > 1)
    }

    /// Kills all that is in it; who was left at that moment. Zombies are not among them, also where threads of theirs have
    /// not gone yet.
    ///
    /// # Errors
    /// As the system's.
    pub fn kill(&self) -> io::Result<BTreeSet<Process>> {
        fs::write(self.0.join("cgroup.kill"), "1")?;
        let mut left = BTreeSet::new();
        for group in below(&self.0)? {
            match fs::read_to_string(group.join("cgroup.procs")) {
                Ok(text) => left.extend(text.lines().filter_map(|pid| Process::of(pid.parse().ok()?))),
                Err(error) if is_gone(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(left)
    }

    /// Removes it with all below it, after everybody there was killed: the last threads of a process may go after it is a
    /// zombie, and are waited for. An absent one is a success.
    ///
    /// # Errors
    /// As the system's; that it is in use, when it still is at the deadline.
    pub async fn remove(&self, deadline: Duration) -> io::Result<()> {
        let until = Instant::now() + deadline;
        let mut pause = Duration::from_millis(1);
        loop {
            match self.try_remove() {
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy && Instant::now() < until => {}
                done => return done,
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(50));
        }
    }

    fn try_remove(&self) -> io::Result<()> {
        for group in below(&self.0)?.iter().rev() {
            match fs::remove_dir(group) {
                Err(error) if !is_gone(&error) => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(nix::libc::ENODEV)
}

/// The cgroup and all below it, each before its own; only itself when it is absent.
fn below(path: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = vec![path.to_owned()];
    let mut next = 0;
    while next < found.len() {
        match fs::read_dir(&found[next]) {
            Ok(entries) => {
                let groups = entries
                    .flatten()
                    .filter(|e| e.file_type().is_ok_and(|kind| kind.is_dir()));
                found.extend(groups.map(|entry| entry.path()));
            }
            Err(error) if is_gone(&error) => {}
            Err(error) => return Err(error),
        }
        next += 1;
    }
    Ok(found)
}

/// Where cgroup2 is mounted, from the text of `/proc/self/mountinfo`.
fn mount_point(mountinfo: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (mount, system) = line.split_once(" - ")?;
        (system.split(' ').next() == Some("cgroup2")).then(|| mount.split(' ').nth(4).map(PathBuf::from))?
    })
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use crate::{
        deadline,
        exec::Cmd,
        machine::proc::{MARKER, kill_in_cgroup},
        model::{ids::AttemptId, names::MachineName},
    };

    #[test]
    fn the_mount_is_found() {
        let mounts = "24 1 0:22 / /proc rw - proc proc rw\n\
                      31 24 0:27 / /sys/fs/cgroup/unified rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";
        assert_eq!(mount_point(mounts), Some(PathBuf::from("/sys/fs/cgroup/unified")));
        assert_eq!(mount_point("24 1 0:22 / /proc rw - proc proc rw\n"), None);
    }

    #[tokio::test]
    async fn an_absent_one_is_unused_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let absent = Cgroup::at(&dir.path().join("none"));
        assert!(!absent.is_used().unwrap());
        absent.remove(deadline::PROMPT).await.unwrap();
    }

    /// A new one; none where cgroup v2 cannot be used.
    fn make() -> Option<Cgroup> {
        let path = Cgroup::path_for(&MachineName::of(AttemptId::new()))?;
        let group = Cgroup::at(&path);
        match group.make() {
            Ok(()) => Some(group),
            Err(error) => {
                println!("skipped: cgroup v2 cannot be used here: {error}");
                None
            }
        }
    }

    #[tokio::test]
    async fn all_in_it_and_the_one_outside_and_who_left_are_killed() {
        let Some(group) = make() else { return };
        assert!(!group.is_used().unwrap());
        let step = group.0.join("agent/7");
        fs::create_dir_all(&step).unwrap();
        assert!(group.is_used().unwrap());
        let dir = tempfile::tempdir().unwrap();
        let left = dir.path().join("left");
        let start = |script: &str| {
            let cmd = Cmd::new("/bin/sh").args(["-c", script, "sh"]).arg(&step).arg(&left);
            let cmd = cmd.env(MARKER, dir.path());
            Process::of(cmd.detach(&dir.path().join("log")).unwrap()).unwrap()
        };
        let outside = start("sleep 600 & wait");
        let inside = start("echo $$ >\"$1\"/cgroup.procs && mkdir \"$1\"/own && setsid sleep 600 & wait");
        // Without its marker it is only a child, and with its own child nobody knows it once its parent is dead.
        let leaves = "echo $$ >\"$1\"/../../../cgroup.procs; sleep 600 & echo $! >\"$2\"; wait";
        let parent = start(&format!(
            "echo $$ >\"$1\"/cgroup.procs; leaves='{leaves}'; env -i /bin/sh -c \"$leaves\" sh \"$1\" \"$2\" & wait"
        ));
        let left = until(|| {
            let pid = fs::read_to_string(&left).ok()?.strip_suffix('\n')?.parse().ok()?;
            let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
            let is_outside = !groups.contains(group.0.file_name()?.to_str()?);
            Process::of(pid).filter(|_| is_outside)
        })
        .await;
        until(|| step.join("own").exists().then_some(())).await;
        kill_in_cgroup(&group, dir.path(), outside, deadline::PROMPT)
            .await
            .unwrap();
        assert!(!outside.is_alive() && !inside.is_alive() && !parent.is_alive() && !left.is_alive());
        assert!(group.kill().unwrap().is_empty());
        group.remove(deadline::PROMPT).await.unwrap();
        assert!(!group.0.exists());
    }

    async fn until<T>(mut look: impl FnMut() -> Option<T>) -> T {
        loop {
            match look() {
                Some(found) => return found,
                None => tokio::task::yield_now().await,
            }
        }
    }

    #[tokio::test]
    async fn who_has_not_gone_yet_is_waited_for() {
        let Some(group) = make() else { return };
        let dir = tempfile::tempdir().unwrap();
        let script = "echo $$ >\"$1\"/cgroup.procs && exec sleep 600";
        let cmd = Cmd::new("/bin/sh").args(["-c", script, "sh"]).arg(&group.0);
        cmd.detach(&dir.path().join("log")).unwrap();
        let procs = group.0.join("cgroup.procs");
        until(|| (!fs::read_to_string(&procs).unwrap().is_empty()).then_some(())).await;
        let busy = group.remove(Duration::ZERO).await.unwrap_err();
        assert_eq!(busy.kind(), io::ErrorKind::ResourceBusy);
        // The first look of the one is before the other has killed.
        let (removed, killed) = tokio::join!(group.remove(deadline::PROMPT), async { group.kill() });
        assert!(removed.is_ok() && killed.is_ok(), "{removed:?} {killed:?}");
        assert!(!group.0.exists());
    }
}
