//! The directories of this host's machines: `<data>/machines/<name>/`, mode 0700. Its
//! `spec.json` is the proof that the machine is ours and of this node; it appears together with the
//! directory, in one rename, and goes together with it.
//!
//! One file is synced before a machine is started, the proof, inside the directory that gets its name afterwards: so a power
//! failure leaves no directory of a machine's name without it. All else describes a process of this host, which such a
//! failure ends, and is not synced; a `run.json` that it left empty or as other bytes says nothing. That a machine is kept is, as that stays.
//!
//! Two more names exist for a moment: `.new-<name>` while a directory is made, `.gone-<name>` while
//! one is removed. Both mean "parts of it exist", so whoever lists them destroys again.

use std::{
    io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    files,
    machine::{Endpoints, proc::Process},
    model::names::{MachineName, NodeName},
};

const SPEC: &str = "spec.json";
const RUN: &str = "run.json";
const NEW: &str = ".new-";
const GONE: &str = ".gone-";
/// No file of ours is larger.
const LIMIT: u64 = 1 << 20;

/// What `spec.json` says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct MachineRecord<P> {
    /// Of this format: 1.
    pub version: u32,
    /// The node that may touch the machine.
    pub node: NodeName,
    /// The machine's name.
    pub name: MachineName,
    /// The back end that made it.
    pub backend: String,
    /// Its addresses.
    pub endpoints: Endpoints,
    /// What the back end needs to start it.
    pub plan: P,
}

/// What `run.json` says: the machine was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RunRecord {
    /// Its main process.
    pub main: Process,
    /// We asked it to stop.
    pub stop_asked: bool,
    /// It is cut off from its node and stays for a person.
    #[serde(default)]
    pub kept: bool,
}

impl RunRecord {
    /// The record of a machine that was just started.
    pub(crate) fn of(main: Process) -> Self {
        Self {
            main,
            stop_asked: false,
            kept: false,
        }
    }
}

/// The state of a machine's directory.
#[derive(Debug, PartialEq)]
pub(crate) enum DirState<P> {
    /// There is no directory.
    Absent,
    /// A machine of ours.
    Ours(Box<MachineRecord<P>>),
    /// A machine of ours that was being made or removed.
    Leftover,
    /// Something we must not touch, and why.
    Foreign(String),
}

/// The directories of all machines of one back end and node.
#[derive(Debug, Clone)]
pub(crate) struct MachineDirs {
    root: PathBuf,
    node: NodeName,
    backend: &'static str,
}

impl MachineDirs {
    /// The directories below a data directory, which the first machine makes.
    pub(crate) fn new(data_dir: &Path, node: NodeName, backend: &'static str) -> Self {
        Self {
            root: data_dir.join("machines"),
            node,
            backend,
        }
    }

    /// A machine's directory.
    pub(crate) fn dir(&self, name: &MachineName) -> PathBuf {
        self.root.join(name.as_str())
    }

    fn aside(&self, prefix: &str, name: &MachineName) -> PathBuf {
        self.root.join(format!("{prefix}{name}"))
    }

    /// The proof of ownership of a machine.
    pub(crate) fn record<P>(&self, name: &MachineName, endpoints: Endpoints, plan: P) -> MachineRecord<P> {
        MachineRecord {
            version: 1,
            node: self.node.clone(),
            name: name.clone(),
            backend: self.backend.to_owned(),
            endpoints,
            plan,
        }
    }

    /// Reads the state of a machine's directory.
    pub(crate) fn inspect<P: DeserializeOwned>(&self, name: &MachineName) -> io::Result<DirState<P>> {
        let dir = self.dir(name);
        match std::fs::symlink_metadata(&dir) {
            Ok(meta) if meta.is_dir() => {}
            Ok(_) => return Ok(DirState::Foreign("it is not a directory".into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let left = [NEW, GONE].iter().any(|prefix| self.aside(prefix, name).exists());
                return Ok(if left { DirState::Leftover } else { DirState::Absent });
            }
            Err(error) => return Err(error),
        }
        let Some(bytes) = files::read_bounded(&dir.join(SPEC), LIMIT)? else {
            return Ok(DirState::Foreign(format!("it has no {SPEC}")));
        };
        // The owner first: another back end's plan has another shape.
        let owner: MachineRecord<serde::de::IgnoredAny> = match serde_json::from_slice(&bytes) {
            Ok(owner) => owner,
            Err(error) => return Ok(DirState::Foreign(format!("its {SPEC} is not one of ours: {error}"))),
        };
        if owner.version != 1 || owner.name != *name || owner.node != self.node || owner.backend != self.backend {
            let (node, backend) = (owner.node, owner.backend);
            return Ok(DirState::Foreign(format!(
                "it belongs to node {node}, back end {backend}"
            )));
        }
        match serde_json::from_slice(&bytes) {
            Ok(record) => Ok(DirState::Ours(Box::new(record))),
            Err(error) => Ok(DirState::Foreign(format!(
                "its {SPEC} was written by another version: {error}"
            ))),
        }
    }

    /// Makes the machine's directory with its proof of ownership, or renews the proof.
    pub(crate) fn create<P: Serialize>(&self, record: &MachineRecord<P>) -> io::Result<()> {
        let dir = self.dir(&record.name);
        let bytes = serde_json::to_vec(record)?;
        if dir.exists() {
            return files::write_private(&dir.join(SPEC), &bytes);
        }
        self.clear_leftovers(&record.name)?;
        let new = self.aside(NEW, &record.name);
        files::private_dir(&new)?;
        files::write_private(&new.join(SPEC), &bytes)?;
        // Under either name it is found again, and destroyed.
        std::fs::rename(&new, &dir)
    }

    /// Removes a machine's directory; the caller has seen that it is ours and nothing runs in it.
    pub(crate) fn remove(&self, name: &MachineName) -> io::Result<()> {
        self.clear_leftovers(name)?;
        match std::fs::rename(self.dir(name), self.aside(GONE, name)) {
            Ok(()) => files::sync_dir(&self.root)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        }
        self.clear_leftovers(name)
    }

    fn clear_leftovers(&self, name: &MachineName) -> io::Result<()> {
        for prefix in [NEW, GONE] {
            files::remove_tree(&self.aside(prefix, name))?;
        }
        Ok(())
    }

    /// Every name under which something may lie, in order. What is there by another name is not
    /// ours and is only reported.
    pub(crate) fn names(&self) -> io::Result<Vec<MachineName>> {
        let mut names = Vec::new();
        for entry in files::entries(&self.root)? {
            let file = entry.file_name();
            let text = file.to_string_lossy();
            let bare = text.strip_prefix(NEW).or(text.strip_prefix(GONE)).unwrap_or(&text);
            match bare.parse() {
                Ok(name) => names.push(name),
                Err(_) => {
                    tracing::warn!(entry = %text, "something that is not a machine lies among the machines; left alone")
                }
            }
        }
        names.sort();
        names.dedup();
        Ok(names)
    }

    /// Whether and how the machine was started. A note that cannot be read is what a power failure left of it, empty or
    /// with other bytes, and the process ended with it; where that is not so, the process is found by its marker.
    pub(crate) fn run(&self, name: &MachineName) -> io::Result<Option<RunRecord>> {
        let bytes = files::read_bounded(&self.dir(name).join(RUN), LIMIT)?;
        Ok(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
    }

    /// Notes that the machine was started. Of a kept one that is durable, with the name of its directory.
    pub(crate) fn set_run(&self, name: &MachineName, run: RunRecord) -> io::Result<()> {
        let (path, bytes) = (self.dir(name).join(RUN), serde_json::to_vec(&run)?);
        if !run.kept {
            return files::write_volatile(&path, &bytes);
        }
        files::write_private(&path, &bytes)?;
        files::sync_dir(&self.root)
    }

    /// Forgets that the machine was started.
    pub(crate) fn clear_run(&self, name: &MachineName) -> io::Result<()> {
        match std::fs::remove_file(self.dir(name).join(RUN)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{machine::ListenAt, model::ids::AttemptId};

    #[test]
    fn a_note_that_a_power_failure_spoilt_says_nothing_and_is_written_again() {
        let data = tempfile::tempdir().unwrap();
        let dirs = MachineDirs::new(data.path(), "n1".parse().unwrap(), "process");
        let name = MachineName::of(AttemptId::new());
        let place = ListenAt::Unix("agent.sock".into());
        let endpoints = Endpoints {
            agent: place.clone(),
            git: place,
            git_authority: String::new(),
            home: String::new(),
        };
        dirs.create(&dirs.record(&name, endpoints, ())).unwrap();
        let run = RunRecord::of(Process { pid: 1, start: 2 });
        for (kept, spoilt) in [
            (false, &b""[..]),
            (true, b""),
            (false, &[0; 60]),
            (true, &[0; 60]),
            (true, b"{"),
        ] {
            std::fs::write(dirs.dir(&name).join(RUN), spoilt).unwrap();
            assert_eq!(dirs.run(&name).unwrap(), None);
            dirs.set_run(&name, RunRecord { kept, ..run }).unwrap();
            assert_eq!(dirs.run(&name).unwrap(), Some(RunRecord { kept, ..run }));
        }
        assert!(matches!(dirs.inspect::<()>(&name).unwrap(), DirState::Ours(_)));
        dirs.remove(&name).unwrap();
        assert_eq!(dirs.inspect::<()>(&name).unwrap(), DirState::Absent);
        assert_eq!(std::fs::read_dir(data.path().join("machines")).unwrap().count(), 0);
    }
}
