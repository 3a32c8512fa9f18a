//! A machine's two datasets, the disk and the zone's own filesystem: made, and read again; the disk also removed, which a
//! guest may delay.

use std::time::Duration;

use crate::{
    machine::{
        MachineSpec,
        step_error::StepError,
        zone::{
            command::zfs,
            host::{Host, Ownership, undone, unless_absent},
        },
    },
    model::{
        illumos::names::{DatasetName, SnapshotName, VolumeSize},
        names::MachineName,
    },
};

/// bhyve's last writes to its disk end within so many tries, so far apart.
const BUSY_TRIES: u32 = 10;
const BUSY: Duration = Duration::from_secs(1);

impl Host {
    /// The disk as a clone of a golden snapshot, as large as it should be.
    ///
    /// # Errors
    /// When it was not made so, or one of the name is somebody else's.
    pub async fn make_disk(
        &self,
        spec: &MachineSpec,
        origin: &SnapshotName,
        disk: &DatasetName,
    ) -> Result<(), StepError> {
        let said = zfs::done(
            &self
                .run(zfs::clone(origin, disk, &spec.node, spec.name.attempt()))
                .await?,
        );
        let seen = self.made(&spec.name, disk, said).await?;
        if seen.origin.as_deref() != Some(origin.to_string().as_str()) {
            return Err(StepError::permanent(format!("{disk} is no clone of {origin}")));
        }
        let wanted = spec
            .disk_gib
            .map(|gib| VolumeSize::at_least(gib.saturating_mul(1 << 30)));
        if let Some(size) = wanted.filter(|size| seen.volsize.is_some_and(|has| has < size.bytes())) {
            let said = zfs::done(&self.run(zfs::grow(disk, size)).await?);
            let grown = self.dataset(disk).await?.and_then(|seen| seen.volsize);
            if grown != Some(size.bytes()) {
                return Err(undone(&format!("{disk} was not grown to {size} bytes"), said));
            }
        }
        Ok(())
    }

    /// The zone's own filesystem, mounted.
    ///
    /// # Errors
    /// As [`Host::make_disk`], and when it is not mounted.
    pub async fn make_zonepath(&self, spec: &MachineSpec, zonepath: &DatasetName) -> Result<(), StepError> {
        let made = zfs::create_zonepath(zonepath, &spec.node, spec.name.attempt());
        let said = zfs::done(&self.run(made).await?);
        if !self.made(&spec.name, zonepath, said).await?.mounted {
            // An install into a plain directory could not be removed with its dataset.
            return Err(StepError::permanent(format!(
                "{zonepath} is not mounted: is its parent?"
            )));
        }
        Ok(())
    }

    async fn made(
        &self,
        machine: &MachineName,
        dataset: &DatasetName,
        said: Result<(), impl std::fmt::Display>,
    ) -> Result<zfs::Dataset, StepError> {
        match self.dataset(dataset).await? {
            None => Err(undone(&format!("{dataset} was not made"), said)),
            Some(seen) if self.is_ours(&seen, machine) => Ok(seen),
            Some(_) => Err(StepError::permanent(format!(
                "{}; it is left alone",
                self.unmarked(dataset)
            ))),
        }
    }

    /// Removes the disk; one that stays busy is quarantined, and that is said.
    ///
    /// # Errors
    /// When it is somebody else's, or cannot be removed for another reason.
    pub async fn remove_disk(&self, machine: &MachineName, disk: &DatasetName) -> Result<(), StepError> {
        let ours = match self.dataset_ownership(disk, machine).await? {
            Ownership::Absent => return Ok(()),
            Ownership::Foreign(why) => return Err(StepError::permanent(format!("{why}; it is left alone"))),
            Ownership::Ours(ours) => ours,
        };
        for _ in 0..BUSY_TRIES {
            let said = unless_absent(zfs::done(&self.run(zfs::destroy(&ours)).await?));
            match said {
                Ok(()) if self.dataset(disk).await?.is_none() => return Ok(()),
                Ok(()) => return Err(undone(&format!("{disk} is still there"), said)),
                Err(error) if error.is_busy() => tokio::time::sleep(self.timeout_scale.scaled(BUSY)).await,
                Err(error) => return Err(error.into()),
            }
        }
        tracing::error!(%disk, "a disk stays busy: it is quarantined; find who holds it with fuser, then destroy it by hand");
        zfs::done(&self.run(zfs::quarantine(&ours)).await?)?;
        Ok(())
    }
}
