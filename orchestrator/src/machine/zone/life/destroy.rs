//! Removes a machine. Each step inspects, acts, and inspects again; what is absent is done. Nothing is touched that
//! does not prove to be ours, and a machine's slot is free only when zone and links are gone.

use std::time::Duration;

use crate::{
    exec::{Cmd, Output},
    machine::{
        step_error::StepError,
        zone::{
            command::{
                bhyvectl, dladm, ipadm, zfs,
                zoneadm::{self, State},
                zonecfg,
            },
            host::{Host, Ownership, index, undone, unless_absent, vmm},
            owned::Owned,
        },
    },
    model::{
        illumos::{
            names::{DatasetName, LinkName},
            network::SlotNetwork,
        },
        names::MachineName,
    },
};

/// A guest whose power was taken is gone after this long.
const POWER: Duration = Duration::from_secs(15);
/// A teardown that goes on in zoneadmd.
const TEARDOWN: Duration = Duration::from_secs(30);

/// What is to be removed.
pub(in crate::machine::zone) struct Destroy<'a> {
    pub(in crate::machine::zone) host: &'a Host,
    pub(in crate::machine::zone) name: &'a MachineName,
    pub(in crate::machine::zone) disk: &'a DatasetName,
    pub(in crate::machine::zone) zonepath: &'a DatasetName,
    /// Its mountpoint, as the zone has it.
    pub(in crate::machine::zone) path: String,
    /// The slot's network; none when no record of it is left, which is so after a reboot of the host, when
    /// the links are gone too.
    pub(in crate::machine::zone) network: Option<&'a SlotNetwork>,
}

/// Removes the address of the host's end of a slot.
async fn address(host: &Host, link: &Owned<LinkName>) -> Result<(), StepError> {
    unless_absent(ipadm::done(&host.run(ipadm::delete_address(link)).await?))?;
    unless_absent(ipadm::done(&host.run(ipadm::delete_interface(link)).await?))?;
    Ok(())
}

/// Removes a slot's address and links.
pub(in crate::machine::zone) async fn links(host: &Host, network: &SlotNetwork) -> Result<(), StepError> {
    let [ours, guest] = host.vnics(network).await?;
    for whose in [&ours, &guest] {
        if let Ownership::Foreign(why) = whose {
            return Err(StepError::permanent(format!("{why}; it is left alone")));
        }
    }
    if let Ownership::Ours(link) = &ours {
        address(host, link).await?;
    }
    for whose in [guest, ours] {
        if let Ownership::Ours(link) = whose {
            unless_absent(dladm::done(&host.run(dladm::delete_vnic(&link)).await?))?;
        }
    }
    // Of a slot that a record names, or whose VNICs were ours; what is above it otherwise keeps it.
    let stub = Owned::by_rule(network.stub.clone());
    let said = unless_absent(dladm::done(&host.run(dladm::delete_stub(&stub)).await?));
    let there = dladm::links(&host.run(dladm::show_links()).await?)?;
    match network
        .links()
        .into_iter()
        .find(|link| there.contains(&link.to_string()))
    {
        None => Ok(()),
        Some(link) => Err(undone(&format!("link {link} is still there"), said)),
    }
}

impl Destroy<'_> {
    pub(in crate::machine::zone) async fn run(&self) -> Result<(), StepError> {
        self.zone().await?;
        self.zonepath().await?;
        if let Some(network) = self.network {
            links(self.host, network).await?;
        }
        self.host.remove_disk(self.name, self.disk).await
    }

    async fn act(&self, command: Cmd) -> Result<Output, StepError> {
        self.host.run(command).await
    }

    async fn state(&self) -> Result<Option<State>, StepError> {
        Ok(self.host.zone(self.name).await?.map(|zone| zone.state))
    }

    async fn zone(&self) -> Result<(), StepError> {
        let ours = match self.host.zone_ownership(self.name).await {
            Ok(Ownership::Absent) => return self.half_a_zone(None).await,
            Ok(Ownership::Ours(ours)) => ours,
            Ok(Ownership::Foreign(why)) => {
                // Half of a configuration has no owner attributes yet; its path below our own dataset is the proof then.
                let zone = self.host.zone(self.name).await?;
                if zone.is_none_or(|zone| zone.zonepath != self.path) || !self.has_dataset().await? {
                    return Err(StepError::permanent(format!("{why}; it is left alone")));
                }
                Owned::by_rule(self.name.clone())
            }
            Err(error) => {
                return Err(StepError::retryable(format!(
                    "the owner of zone {name} is not known: {}. If /etc/zones/{name}.xml is damaged and the zone is not \
                     running, remove it with `zonecfg -z {name} delete -F`",
                    error.reason,
                    name = self.name
                )));
            }
        };
        self.halt(&ours).await?;
        self.uninstall(&ours).await?;
        match self.state().await? {
            None => return self.half_a_zone(Some(ours)).await,
            Some(State::Configured) => self.delete(&ours).await?,
            // Deleting an installed zone would orphan its dataset.
            Some(state) => return Err(StepError::retryable(format!("zone {} is still {state:?}", self.name))),
        }
        match self.state().await? {
            None => Ok(()),
            Some(state) => Err(StepError::retryable(format!("zone {} is still {state:?}", self.name))),
        }
    }

    async fn delete(&self, zone: &Owned<MachineName>) -> Result<(), StepError> {
        Ok(unless_absent(zonecfg::done(&self.act(zonecfg::delete(zone)).await?))?)
    }

    async fn has_dataset(&self) -> Result<bool, StepError> {
        let whose = self.host.dataset_ownership(self.zonepath, self.name).await?;
        Ok(matches!(whose, Ownership::Ours(_)))
    }

    /// No list has the zone. It is gone, or half of it is: its configuration without a line in the index (which is
    /// `configured` and known by its owner attributes), or such a line without a configuration, as a boot environment may bring
    /// back. A list also leaves out a zone that is just changing: that one has both and is asked for again.
    async fn half_a_zone(&self, configured: Option<Owned<MachineName>>) -> Result<(), StepError> {
        let line = index::zonepath(self.name)?;
        let ours = match (&line, configured) {
            (None, configured) => configured,
            (Some(_), Some(_)) => {
                return Err(StepError::retryable(format!(
                    "zone {} is in no list just now, and is not gone",
                    self.name
                )));
            }
            (Some(path), None) => {
                let known = *path == self.path && (self.network.is_some() || self.has_dataset().await?);
                known.then(|| Owned::by_rule(self.name.clone()))
            }
        };
        let Some(ours) = ours else {
            return match line {
                None => Ok(()),
                Some(path) => Err(StepError::permanent(format!(
                    "/etc/zones/index has a zone {} at {path} without a configuration; it is left alone",
                    self.name
                ))),
            };
        };
        self.delete(&ours).await?;
        if index::zonepath(self.name)?.is_none() && self.host.exported(self.name).await?.is_none() {
            return Ok(());
        }
        Err(StepError::retryable(format!(
            "half of zone {} is still there",
            self.name
        )))
    }

    /// Never begins with `zoneadm halt`, which would wait half an hour for the guest.
    pub(in crate::machine::zone) async fn halt(&self, zone: &Owned<MachineName>) -> Result<(), StepError> {
        let alive = |state: Option<&State>| {
            matches!(
                state,
                Some(State::Running | State::Ready | State::ShuttingDown | State::Down)
            )
        };
        if alive(self.state().await?.as_ref()) {
            self.end(zone, alive).await?;
        }
        // It may outlive its bhyve, also one that ended by itself, and keeps the guest's memory.
        if vmm(self.name).exists() {
            let said = bhyvectl::done(&self.act(bhyvectl::destroy(zone)).await?);
            if vmm(self.name).exists() {
                return Err(undone(
                    &format!("the virtual machine {} is still there", self.name),
                    said,
                ));
            }
        }
        Ok(())
    }

    /// Ends a zone that is up, and waits for its teardown.
    async fn end(&self, zone: &Owned<MachineName>, alive: impl Fn(Option<&State>) -> bool) -> Result<(), StepError> {
        // Its failure says that the virtual machine is gone already, or nothing at all, and it may hang: the state decides.
        let _said = self.act(bhyvectl::power_off(zone)).await;
        let ended = |state: Option<&State>| !matches!(state, Some(State::Running));
        if !ended(self.host.wait(self.name, POWER, ended).await?.as_ref()) {
            let _said = self.act(bhyvectl::kill(zone)).await;
            self.host.wait(self.name, POWER, ended).await?;
        }
        let mut words = String::new();
        let state = self.state().await?;
        if alive(state.as_ref()) {
            // zoneadmd goes on with it, whatever becomes of the command.
            let said = self.act(zoneadm::halt(zone)).await;
            let said = said.and_then(|output| Ok(zoneadm::done(&output)?));
            words = said
                .err()
                .map(|error| format!(": {}", error.reason))
                .unwrap_or_default();
        }
        let state = self.host.wait(self.name, TEARDOWN, |state| !alive(state)).await?;
        if alive(state.as_ref()) {
            return Err(StepError::retryable(format!(
                "zone {} hangs in {state:?}{words}; a host that cannot end its zones needs a reboot",
                self.name
            )));
        }
        Ok(())
    }

    async fn uninstall(&self, zone: &Owned<MachineName>) -> Result<(), StepError> {
        if !matches!(self.state().await?, Some(State::Installed | State::Incomplete)) {
            return Ok(());
        }
        let output = self.act(zoneadm::uninstall(zone)).await?;
        let Err(error) = unless_absent(zoneadm::done(&output)) else {
            return Ok(());
        };
        if error.said.contains("is not a directory") {
            // Its data is gone already.
            zoneadm::done(&self.act(zoneadm::mark_configured(zone)).await?)?;
            return Ok(());
        }
        if matches!(self.state().await?, Some(State::Configured) | None) {
            return Ok(());
        }
        Err(error.into())
    }

    /// The zone's own filesystem, where its uninstallation left it.
    async fn zonepath(&self) -> Result<(), StepError> {
        match self.host.dataset_ownership(self.zonepath, self.name).await? {
            Ownership::Absent => Ok(()),
            Ownership::Foreign(why) => Err(StepError::permanent(format!("{why}; it is left alone"))),
            Ownership::Ours(ours) => {
                if self.host.zones().await?.iter().any(|zone| zone.zonepath == self.path) {
                    return Err(StepError::retryable(format!("a zone still lies at {}", self.path)));
                }
                Ok(unless_absent(zfs::done(
                    &self.act(zfs::destroy_zonepath(&ours)).await?,
                ))?)
            }
        }
    }

    /// Takes the host's end of the guest's link away: what is left of the network leads nowhere.
    pub(in crate::machine::zone) async fn cut_off(&self, network: &SlotNetwork) -> Result<(), StepError> {
        let [host, _] = self.host.vnics(network).await?;
        let link = match host {
            Ownership::Absent => return Ok(()),
            Ownership::Foreign(why) => return Err(StepError::permanent(format!("{why}; it is left alone"))),
            Ownership::Ours(link) => link,
        };
        address(self.host, &link).await?;
        unless_absent(dladm::done(&self.act(dladm::delete_vnic(&link)).await?))?;
        match self.host.vnics(network).await? {
            [Ownership::Absent, _] => Ok(()),
            _ => Err(StepError::retryable(format!("VNIC {} is still there", network.host))),
        }
    }
}
