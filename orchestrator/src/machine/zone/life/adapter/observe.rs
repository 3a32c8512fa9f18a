//! The state of one machine, and the list of all.

use std::{collections::BTreeSet, path::PathBuf};

use super::Zones;
use crate::{
    machine::{
        Observed, OwnedMachine,
        ending::{self, Ending},
        step_error::StepError,
        zone::{
            command::{zfs, zoneadm::State},
            host::Ownership,
            life::zone_files,
        },
    },
    model::names::MachineName,
};

/// What a wait status in `lastexited` means. bhyve's exit code 1 is the guest's own power-off, or a forced one, and signal 9
/// what comes where that does not help: whoever did it wrote it down.
fn ended(status: Option<i64>, power_taken: Option<&str>) -> String {
    match status {
        Some(256 | 9) if let Some(why) = power_taken => format!("its power was taken: {why}"),
        Some(256) => "the guest powered itself off".to_owned(),
        Some(-1) => "its zone was halted".to_owned(),
        // The signal, and a bit that says whether a core was written.
        Some(status) if status & 0x7f != 0 => format!("its bhyve was ended by signal {}", status & 0x7f),
        Some(status) => format!("its bhyve ended with exit code {}", status >> 8),
        None => "its zone halted".to_owned(),
    }
}

impl Zones {
    pub(super) async fn inspect(&self, name: &MachineName, zone: Option<&State>) -> Result<Observed, StepError> {
        let record = self.records.read(name)?;
        let started = record.as_ref().is_some_and(|record| record.started);
        Ok(match zone {
            Some(State::Running | State::Ready) => Observed::Running,
            // Of a state that is not known nothing is concluded: its job's own clocks decide.
            Some(State::Other(_)) if started => Observed::Running,
            Some(State::ShuttingDown | State::Down) => Observed::Stopped("its zone is being torn down".into()),
            // A host that was rebooted has forgotten the record, and the guest with it.
            Some(State::Installed) if started => {
                let taken = self.records.power_taken(name);
                Observed::Stopped(self.ending(name, taken.as_deref()))
            }
            Some(_) => Observed::Prepared,
            None if record.is_some() => Observed::Prepared,
            None => {
                let disk = self
                    .host
                    .dataset_ownership(&self.below("machines", name)?, name)
                    .await?;
                let zonepath = self.host.dataset_ownership(&self.below("zones", name)?, name).await?;
                if matches!(disk, Ownership::Ours(_)) || matches!(zonepath, Ownership::Ours(_)) {
                    Observed::Prepared
                } else {
                    Observed::Absent
                }
            }
        })
    }

    /// How bhyve ended: what zoneadmd wrote down, and what guest and bhyve say of it.
    fn ending(&self, name: &MachineName, power_taken: Option<&str>) -> String {
        let path = PathBuf::from(self.options.zone.path.to_string()).join(name.as_str());
        let status = zone_files::tail(&path, &[], "lastexited", 100);
        let status = status.and_then(|text| text.split_whitespace().nth(1)?.parse::<i64>().ok());
        let program = |parts: &[&str], file: &str| zone_files::end(&path, parts, file, ending::END).unwrap_or_default();
        let mut said = program(&["root", "tmp"], "init.log");
        // The brand's hooks have their own log, which tells why a bhyve would not run.
        if status.is_some_and(|status| status & 0x7f == 0 && status != 256) && ending::said_by_program(&said).is_none()
        {
            said = program(&["log"], "zone.log");
        }
        let ending = Ending {
            how: &ended(status, power_taken),
            is_reason: true,
            console: &ending::end_of_console(&self.console_dir(name)),
            program: &said,
        };
        ending.explain()
    }

    pub(super) async fn list_machines(&self) -> Result<Vec<OwnedMachine>, StepError> {
        let zones = self.host.zones().await?;
        let mut names: BTreeSet<MachineName> = self.records.names()?.into_iter().collect();
        for zone in &zones {
            let Ok(name) = zone.name.parse::<MachineName>() else {
                continue;
            };
            match self.host.zone_ownership(&name).await {
                Ok(Ownership::Ours(ours)) => {
                    if zone.state == State::Running && !self.power_off_unless_protected(&ours).await? {
                        self.read_on(&name).await;
                    }
                    names.insert(name);
                }
                Ok(Ownership::Absent | Ownership::Foreign(_)) => {}
                // What cannot be read of one zone must not hide all others.
                Err(error) => tracing::warn!(reason = error.reason, "the owner of a zone is not known now"),
            }
        }
        for kind in ["machines", "zones"] {
            let parent = self.options.zone.dataset.child(kind)?;
            let output = self.host.run(zfs::list(&parent)).await?;
            let below = zfs::children_by_owner(&parent, &self.options.node, &output)?;
            names.extend(below.ours.iter().filter_map(|name| name.parse().ok()));
        }
        self.remove_stray_links().await?;
        let mut machines = Vec::new();
        for name in names {
            let state = zones
                .iter()
                .find(|zone| zone.name == name.as_str())
                .map(|zone| &zone.state);
            let observed = self.inspect(&name, state).await?;
            machines.push(OwnedMachine { name, observed });
        }
        Ok(machines)
    }
}

#[cfg(test)]
mod tests {
    use super::ended;

    #[test]
    fn wait_statuses_are_told_apart() {
        let ended = |status| ended(Some(status), None);
        assert_eq!(ended(256), "the guest powered itself off");
        assert_eq!(ended(-1), "its zone was halted");
        assert_eq!(ended(1024), "its bhyve ended with exit code 4");
        assert_eq!(ended(9), "its bhyve was ended by signal 9");
        assert_eq!(ended(139), "its bhyve was ended by signal 11");
    }

    #[test]
    fn a_power_that_was_taken_is_not_the_guests_own() {
        let ended = |status| ended(Some(status), Some("it was stopped"));
        for status in [256, 9] {
            assert_eq!(ended(status), "its power was taken: it was stopped");
        }
        // It ended in another way before.
        assert_eq!(ended(1024), "its bhyve ended with exit code 4");
    }
}
