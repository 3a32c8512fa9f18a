//! Step trees as cgroups of version 2.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    mount::{MsFlags, mount},
    sys::signal::{Signal, kill},
    unistd::{AccessFlags, Pid, access},
};

use crate::child;

/// Where it is mounted when nobody has.
const MOUNT_POINT: &str = "/sys/fs/cgroup";

/// The variable by which a node says in which cgroup those of an agent on its host go.
const MACHINE_CGROUP: &str = "HELIOS_CI_CGROUP";

/// The cgroup above all steps of this agent, below the agent's own.
#[derive(Debug)]
pub struct Parent {
    path: PathBuf,
}

impl Parent {
    pub(super) fn make(real_machine: bool, key: &str) -> io::Result<Self> {
        let root = match mount_point(&fs::read_to_string("/proc/self/mountinfo")?) {
            Some(root) => root,
            None if real_machine && nix::unistd::geteuid().is_root() => {
                let none: Option<&str> = None;
                mount(Some("cgroup2"), MOUNT_POINT, Some("cgroup2"), MsFlags::empty(), none)?;
                PathBuf::from(MOUNT_POINT)
            }
            None => return Err(io::Error::new(io::ErrorKind::NotFound, "it is not mounted")),
        };
        let groups = fs::read_to_string("/proc/self/cgroup")?;
        let own =
            own_cgroup(&groups).ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "this process is in none"))?;
        let own = root.join(own.trim_start_matches('/'));
        // Moving a process needs this of the cgroup above both ends, besides those of the ends.
        access(&own.join("cgroup.procs"), AccessFlags::W_OK)?;
        // The node may have made one for this machine, below the same, where it finds all steps when the machine goes.
        let above = std::env::var_os(MACHINE_CGROUP).map_or(own, PathBuf::from);
        let path = above.join(format!("helios-{key}"));
        fs::create_dir(&path)?;
        let parent = Self { path };
        access(&parent.path.join("cgroup.kill"), AccessFlags::W_OK)?;
        Ok(parent)
    }

    pub(super) fn child(&self, exec_id: u64) -> io::Result<Cgroup> {
        let path = self.path.join(exec_id.to_string());
        fs::create_dir(&path)?;
        Ok(Cgroup { path })
    }
}

impl Drop for Parent {
    fn drop(&mut self) {
        // An agent that ends has cleared its steps; where it could not, the directory has to stay.
        let _ = fs::remove_dir(&self.path);
    }
}

/// One step.
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    pub(super) fn entrance(&self) -> io::Result<child::Cgroup> {
        child::Cgroup::open(&self.path)
    }

    #[allow(clippy::unused_self, clippy::unnecessary_wraps)] // One of the kinds of tree.
    pub(super) fn rooted(&self, _leader: Pid) -> io::Result<()> {
        Ok(())
    }

    pub(super) fn signal(&self, signal: Signal) -> io::Result<()> {
        if signal == Signal::SIGKILL {
            return fs::write(self.path.join("cgroup.kill"), "1");
        }
        for pid in self.members()? {
            match kill(Pid::from_raw(pid), signal) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Process ids; zombies are not among them.
    pub(super) fn members(&self) -> io::Result<Vec<i32>> {
        let mut pids = Vec::new();
        for group in descendants(&self.path)? {
            match fs::read_to_string(group.join("cgroup.procs")) {
                Ok(text) => pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok())),
                Err(error) if gone(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(pids)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        for group in descendants(&self.path).unwrap_or_default().into_iter().rev() {
            // Busy only when something could not be killed, which was reported.
            let _ = fs::remove_dir(group);
        }
    }
}

fn gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(nix::libc::ENODEV)
}

/// The group and all below it, each before its own children: a step may make some.
fn descendants(path: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = vec![path.to_owned()];
    let mut next = 0;
    while next < found.len() {
        match fs::read_dir(&found[next]) {
            Ok(entries) => {
                let directories = entries
                    .flatten()
                    .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
                found.extend(directories.map(|entry| entry.path()));
            }
            Err(error) if gone(&error) => {}
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

/// The cgroup of version 2 that a process is in, from the text of `/proc/self/cgroup`.
fn own_cgroup(text: &str) -> Option<&str> {
    text.lines().find_map(|line| line.strip_prefix("0::"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_and_the_own_group_are_found() {
        let mounts = "24 1 0:22 / /proc rw - proc proc rw\n\
                      31 24 0:27 / /sys/fs/cgroup/unified rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";
        assert_eq!(mount_point(mounts), Some(PathBuf::from("/sys/fs/cgroup/unified")));
        assert_eq!(mount_point("24 1 0:22 / /proc rw - proc proc rw\nrubbish"), None);
        assert_eq!(own_cgroup("4:memory:/a\n0::/user.slice/b\n"), Some("/user.slice/b"));
        assert_eq!(own_cgroup("4:memory:/a\n"), None);
    }
}
