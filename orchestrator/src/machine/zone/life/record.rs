//! What machined knows of its machines besides what the host shows: which slot a machine has, and whether it
//! was started. One file per machine, written before anything is made. The directory vanishes at a reboot of
//! the host, as do the links that the slots name.

use std::{collections::BTreeSet, io, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::{
    files,
    machine::Endpoints,
    model::{illumos::network::Slot, names::MachineName},
};

/// No record is larger.
const LIMIT: u64 = 64 << 10;

/// A machine's record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::machine::zone) struct ZoneRecord {
    /// Its slot's number.
    pub(in crate::machine::zone) slot: u32,
    /// Its memory in MiB, which is the host's no more while it runs.
    #[serde(default)]
    pub(in crate::machine::zone) memory_mib: u64,
    /// Where the daemon listens for it.
    pub(in crate::machine::zone) endpoints: Endpoints,
    /// Everything was made.
    pub(in crate::machine::zone) prepared: bool,
    /// It was booted; a machine boots once.
    pub(in crate::machine::zone) started: bool,
    /// It is cut off from its node and stays for a person.
    #[serde(default)]
    pub(in crate::machine::zone) kept: bool,
    /// Its console is left to others: nobody here connects to it.
    #[serde(default)]
    pub(in crate::machine::zone) released: bool,
}

/// Why there is no room for one more machine.
#[derive(Debug, thiserror::Error)]
pub(in crate::machine::zone) enum Full {
    #[error("all {0} slots of the machines' network are in use, or their links are another's")]
    Slots(u32),
    #[error(
        "machines have {used} MiB of memory, and may have {limit} MiB together: {asked} MiB more are not to be had \
         (`capacity.memory_mib`, or what ZFS's cache leaves)"
    )]
    Memory { used: u64, limit: u64, asked: u64 },
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// What all machines share.
#[derive(Debug, Clone, Copy)]
pub(in crate::machine::zone) struct Room {
    /// How many slots there are.
    pub(in crate::machine::zone) slots: u32,
    /// How much memory, when that is bounded.
    pub(in crate::machine::zone) memory_mib: Option<u64>,
}

/// All records of this host.
#[derive(Debug)]
pub(in crate::machine::zone) struct ZoneRecords {
    dir: PathBuf,
    /// Two machines prepared at one moment must not get one slot.
    choosing: std::sync::Mutex<()>,
}

impl ZoneRecords {
    /// The records in this directory, which only root enters.
    pub(in crate::machine::zone) fn new(dir: PathBuf) -> Self {
        Self {
            dir,
            choosing: std::sync::Mutex::new(()),
        }
    }

    fn file(&self, name: &MachineName) -> PathBuf {
        self.dir.join(format!("{name}.json"))
    }

    /// A machine's record.
    pub(in crate::machine::zone) fn read(&self, name: &MachineName) -> io::Result<Option<ZoneRecord>> {
        let bytes = files::read_bounded(&self.file(name), LIMIT)?;
        Ok(bytes.map(|bytes| serde_json::from_slice(&bytes)).transpose()?)
    }

    pub(in crate::machine::zone) fn write(&self, name: &MachineName, record: &ZoneRecord) -> io::Result<()> {
        files::write_private(&self.file(name), &serde_json::to_vec(record)?)
    }

    /// Beside the record, which others change meanwhile.
    fn power_file(&self, name: &MachineName) -> PathBuf {
        self.dir.join(format!("{name}.power"))
    }

    /// Writes down why a machine's power is about to be taken: bhyve ends then as it does when a guest powers itself off.
    /// A power that must be taken is taken all the same where this cannot be written.
    pub(in crate::machine::zone) fn note_power(&self, name: &MachineName, why: &str) {
        if let Err(error) = files::write_private(&self.power_file(name), why.as_bytes()) {
            tracing::warn!(machine = %name, %error, "why its power is taken cannot be written down");
        }
    }

    /// Why a machine's power was taken; none when it was not, or nothing is known.
    pub(in crate::machine::zone) fn power_taken(&self, name: &MachineName) -> Option<String> {
        let bytes = files::read_bounded(&self.power_file(name), LIMIT).ok()??;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    pub(in crate::machine::zone) fn remove(&self, name: &MachineName) -> io::Result<()> {
        files::remove_with_unfinished(&self.power_file(name))?;
        files::remove_with_unfinished(&self.file(name))
    }

    /// The slots that machines have.
    pub(in crate::machine::zone) fn slots(&self) -> io::Result<BTreeSet<u32>> {
        let mut taken = BTreeSet::new();
        for name in self.names()? {
            taken.extend(self.read(&name)?.map(|record| record.slot));
        }
        Ok(taken)
    }

    /// Gives a machine the lowest slot that no other has, and writes that down. `make` says what the record
    /// is for a slot.
    ///
    /// # Errors
    /// When there is no slot for it, or not its memory.
    pub(in crate::machine::zone) fn choose(
        &self,
        name: &MachineName,
        room: Room,
        make: impl Fn(Slot) -> Option<ZoneRecord>,
    ) -> Result<ZoneRecord, Full> {
        let _one_at_a_time = self.choosing.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        files::private_dir(&self.dir)?;
        let (mut taken, mut used) = (BTreeSet::new(), 0_u64);
        for other in self.names()? {
            if let Some(record) = self.read(&other)? {
                taken.insert(record.slot);
                used = used.saturating_add(record.memory_mib);
            }
        }
        let mut free = (0..room.slots).filter(|number| !taken.contains(number));
        let record = free.find_map(|number| make(Slot::new(number)?));
        let record = record.ok_or(Full::Slots(room.slots))?;
        let asked = record.memory_mib;
        match room.memory_mib {
            Some(limit) if used.saturating_add(asked) > limit => return Err(Full::Memory { used, limit, asked }),
            _ => {}
        }
        self.write(name, &record)?;
        Ok(record)
    }

    /// Every machine that has a record.
    pub(in crate::machine::zone) fn names(&self) -> io::Result<Vec<MachineName>> {
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

    fn record(slot: Slot) -> Option<ZoneRecord> {
        Some(ZoneRecord {
            slot: slot.number(),
            memory_mib: 1024,
            endpoints: Endpoints {
                agent: ListenAt::Tcp("10.77.0.1:9417".parse().unwrap()),
                git: ListenAt::Tcp("10.77.0.1:9418".parse().unwrap()),
                git_authority: "10.77.0.1:9418".into(),
                home: "/helios".into(),
            },
            prepared: false,
            started: false,
            kept: false,
            released: false,
        })
    }

    #[test]
    fn each_machine_has_a_slot_of_its_own_until_it_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let records = ZoneRecords::new(dir.path().join("machines"));
        let names: Vec<_> = (0..3).map(|_| MachineName::of(AttemptId::new())).collect();
        let room = Room {
            slots: 2,
            memory_mib: None,
        };
        let slot = |name: &MachineName| records.choose(name, room, record).ok().map(|record| record.slot);
        assert_eq!(
            (slot(&names[0]), slot(&names[1]), slot(&names[2])),
            (Some(0), Some(1), None)
        );
        // What a write that was killed left goes with the record.
        let unfinished = dir.path().join(format!("machines/.{}.json.x1.part", names[0]));
        std::fs::write(&unfinished, "{").unwrap();
        records.remove(&names[0]).unwrap();
        records.remove(&names[0]).unwrap();
        assert!(!unfinished.exists());
        assert_eq!(slot(&names[2]), Some(0));
        let mut found = vec![names[1].clone(), names[2].clone()];
        found.sort();
        assert_eq!(records.names().unwrap(), found);
        let mut started = records.read(&names[1]).unwrap().unwrap();
        started.started = true;
        records.write(&names[1], &started).unwrap();
        assert_eq!(records.read(&names[1]).unwrap(), Some(started));
    }

    #[test]
    fn machines_have_no_more_memory_together_than_there_is() {
        let dir = tempfile::tempdir().unwrap();
        let records = ZoneRecords::new(dir.path().join("machines"));
        let names: Vec<_> = (0..3).map(|_| MachineName::of(AttemptId::new())).collect();
        let room = Room {
            slots: 9,
            memory_mib: Some(2048),
        };
        records.choose(&names[0], room, record).unwrap();
        records.choose(&names[1], room, record).unwrap();
        let full = records.choose(&names[2], room, record).unwrap_err();
        assert!(
            matches!(
                full,
                Full::Memory {
                    used: 2048,
                    limit: 2048,
                    asked: 1024
                }
            ),
            "{full}"
        );
        assert_eq!(records.read(&names[2]).unwrap(), None);
        records.remove(&names[1]).unwrap();
        records.choose(&names[2], room, record).unwrap();
    }
}
