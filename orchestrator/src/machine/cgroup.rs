//! The cgroup of a process machine, below the daemon's own: the agent makes one for each step in it, so that the steps'
//! processes are found, and killed, without reading about every process of the host. The agent itself stays outside; who it
//! is is known. Where the daemon may not make cgroups there is none, and steps are found by their marker (`proc`).

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
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

    /// Kills all that is in it; who was left at that moment. Zombies are not among them.
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

    /// Removes it with all below it. Nothing may run there; an absent one is a success.
    ///
    /// # Errors
    /// As the system's.
    pub fn remove(&self) -> io::Result<()> {
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
        machine::proc::kill_in_cgroup,
        model::{ids::AttemptId, names::MachineName},
    };

    #[test]
    fn the_mount_is_found() {
        let mounts = "24 1 0:22 / /proc rw - proc proc rw\n\
                      31 24 0:27 / /sys/fs/cgroup/unified rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";
        assert_eq!(mount_point(mounts), Some(PathBuf::from("/sys/fs/cgroup/unified")));
        assert_eq!(mount_point("24 1 0:22 / /proc rw - proc proc rw\n"), None);
    }

    #[test]
    fn an_absent_one_is_unused_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let absent = Cgroup::at(&dir.path().join("none"));
        assert!(!absent.is_used().unwrap());
        absent.remove().unwrap();
    }

    #[tokio::test]
    async fn all_in_it_and_the_one_outside_are_killed() {
        let path = Cgroup::path_for(&MachineName::of(AttemptId::new()));
        let Some(group) = path.map(|path| Cgroup::at(&path)).filter(|group| group.make().is_ok()) else {
            return println!("skipped: cgroup v2 cannot be used here");
        };
        assert!(!group.is_used().unwrap());
        let step = group.0.join("agent/7");
        fs::create_dir_all(&step).unwrap();
        assert!(group.is_used().unwrap());
        let dir = tempfile::tempdir().unwrap();
        let start = |script: &str| {
            let cmd = Cmd::new("/bin/sh").args(["-c", script, "sh"]).arg(&step);
            Process::of(cmd.detach(&dir.path().join("log")).unwrap()).unwrap()
        };
        let outside = start("sleep 600 & wait");
        let inside = start("echo $$ >\"$1\"/cgroup.procs && mkdir \"$1\"/own && setsid sleep 600 & wait");
        while fs::read_to_string(step.join("cgroup.procs")).unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
        kill_in_cgroup(&group, Some(outside), deadline::PROMPT).await.unwrap();
        assert!(!outside.is_alive());
        assert!(group.kill().unwrap().is_empty());
        group.remove().unwrap();
        assert!(!group.0.exists());
        inside.kill().unwrap();
    }
}
