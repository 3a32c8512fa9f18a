//! What machined knows of its machines besides what the host shows: which slot a machine has, and whether it
//! was started. One file per machine, written before anything is made. The directory vanishes at a reboot of
//! the host, as do the links that the slots name.

use std::{collections::BTreeSet, io, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::{
    machine::{Endpoints, files},
    model::{illumos::network::Slot, names::MachineName},
};

/// No record is larger.
const LIMIT: u64 = 64 << 10;

/// A machine's record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// Its slot's number.
    pub(super) slot: u32,
    /// Where the daemon listens for it.
    pub(super) endpoints: Endpoints,
    /// Everything was made.
    pub(super) prepared: bool,
    /// It was booted; a machine boots once.
    pub(super) started: bool,
}

/// All records of this host.
#[derive(Debug)]
pub(super) struct Records {
    dir: PathBuf,
    /// Two machines prepared at one moment must not get one slot.
    choosing: std::sync::Mutex<()>,
}

impl Records {
    /// The records in this directory, which only root enters.
    pub(super) fn new(dir: PathBuf) -> Self {
        Self {
            dir,
            choosing: std::sync::Mutex::new(()),
        }
    }

    fn file(&self, name: &MachineName) -> PathBuf {
        self.dir.join(format!("{name}.json"))
    }

    /// A machine's record.
    pub(super) fn read(&self, name: &MachineName) -> io::Result<Option<Record>> {
        let bytes = files::read_bounded(&self.file(name), LIMIT)?;
        Ok(bytes.map(|bytes| serde_json::from_slice(&bytes)).transpose()?)
    }

    pub(super) fn write(&self, name: &MachineName, record: &Record) -> io::Result<()> {
        files::write_atomic(&self.file(name), &serde_json::to_vec(record)?)
    }

    pub(super) fn remove(&self, name: &MachineName) -> io::Result<()> {
        match std::fs::remove_file(self.file(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// The slots that machines have.
    pub(super) fn slots(&self) -> io::Result<BTreeSet<u32>> {
        let mut taken = BTreeSet::new();
        for name in self.names()? {
            taken.extend(self.read(&name)?.map(|record| record.slot));
        }
        Ok(taken)
    }

    /// Gives a machine the lowest slot that no other has, and writes that down. `make` says what the record
    /// is for a slot.
    pub(super) fn choose(
        &self,
        name: &MachineName,
        slots: u32,
        make: impl Fn(Slot) -> Option<Record>,
    ) -> io::Result<Option<Record>> {
        let _one_at_a_time = self.choosing.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        files::private_dir(&self.dir)?;
        let taken = self.slots()?;
        let mut free = (0..slots).filter(|number| !taken.contains(number));
        let Some(record) = free.find_map(|number| make(Slot::new(number)?)) else {
            return Ok(None);
        };
        self.write(name, &record)?;
        Ok(Some(record))
    }

    /// Every machine that has a record.
    pub(super) fn names(&self) -> io::Result<Vec<MachineName>> {
        let mut names = Vec::new();
        for entry in files::entries(&self.dir)? {
            let file = entry.file_name();
            names.extend(file.to_str().and_then(|text| text.strip_suffix(".json")?.parse().ok()));
        }
        names.sort();
        Ok(names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{machine::ListenAt, model::ids::AttemptId};

    fn record(slot: Slot) -> Option<Record> {
        Some(Record {
            slot: slot.number(),
            endpoints: Endpoints {
                agent: ListenAt::Tcp("10.77.0.1:9417".parse().unwrap()),
                git: ListenAt::Tcp("10.77.0.1:9418".parse().unwrap()),
                git_authority: "10.77.0.1:9418".into(),
                home: "/helios".into(),
            },
            prepared: false,
            started: false,
        })
    }

    #[test]
    fn each_machine_has_a_slot_of_its_own_until_it_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::new(dir.path().join("machines"));
        let names: Vec<_> = (0..3).map(|_| MachineName::of(AttemptId::new())).collect();
        let slot = |name: &MachineName| records.choose(name, 2, record).unwrap().map(|record| record.slot);
        assert_eq!(
            (slot(&names[0]), slot(&names[1]), slot(&names[2])),
            (Some(0), Some(1), None)
        );
        records.remove(&names[0]).unwrap();
        records.remove(&names[0]).unwrap();
        assert_eq!(slot(&names[2]), Some(0));
        let mut found = vec![names[1].clone(), names[2].clone()];
        found.sort();
        assert_eq!(records.names().unwrap(), found);
        let mut started = records.read(&names[1]).unwrap().unwrap();
        started.started = true;
        records.write(&names[1], &started).unwrap();
        assert_eq!(records.read(&names[1]).unwrap(), Some(started));
    }
}
