//! Removes a machine. Each step looks, acts, and looks again; what is absent is done. Nothing is touched that
//! does not prove to be ours, and a machine's slot is free only when zone and links are gone.

use std::time::Duration;

use super::{
    command::{
        bhyvectl, dladm, ipadm, zfs,
        zoneadm::{self, State},
        zonecfg,
    },
    host::{Host, Whose, unless_absent, vmm},
};
use crate::{
    exec::{Cmd, Output},
    machine::trouble::Trouble,
    model::{
        illumos::{names::DatasetName, network::SlotNetwork},
        names::MachineName,
    },
};

/// A guest whose power was taken is gone after this long.
const POWER: Duration = Duration::from_secs(15);
/// A teardown that goes on in zoneadmd.
const TEARDOWN: Duration = Duration::from_secs(30);

/// What is to be removed.
pub(super) struct Destroy<'a> {
    pub(super) host: &'a Host,
    pub(super) name: &'a MachineName,
    pub(super) disk: &'a DatasetName,
    pub(super) zonepath: &'a DatasetName,
    /// Its mountpoint, as the zone has it.
    pub(super) path: String,
    /// The slot's network; none when no record of it is left, which is so after a reboot of the host, when
    /// the links are gone too.
    pub(super) network: Option<&'a SlotNetwork>,
}

impl Destroy<'_> {
    pub(super) async fn run(&self) -> Result<(), Trouble> {
        self.zone().await?;
        self.zonepath().await?;
        if let Some(network) = self.network {
            self.network(network).await?;
        }
        self.host.remove_disk(self.name, self.disk).await
    }

    async fn act(&self, command: Cmd) -> Result<Output, Trouble> {
        self.host.run(command).await
    }

    async fn state(&self) -> Result<Option<State>, Trouble> {
        Ok(self.host.zone(self.name).await?.map(|zone| zone.state))
    }

    async fn zone(&self) -> Result<(), Trouble> {
        match self.host.whose_zone(self.name).await? {
            Whose::Nobodys => return Ok(()),
            Whose::Ours => {}
            Whose::Anothers(why) => {
                // Half of a configuration has no marks yet; its path below our own dataset is the proof then.
                let zone = self.host.zone(self.name).await?;
                let here = zone.is_some_and(|zone| zone.zonepath == self.path);
                if !here || self.host.whose_dataset(self.zonepath, self.name).await? != Whose::Ours {
                    return Err(Trouble::lasting(format!("{why}; it is left alone")));
                }
            }
        }
        self.halt().await?;
        self.uninstall().await?;
        match self.state().await? {
            None => return Ok(()),
            Some(State::Configured) => unless_absent(zonecfg::done(&self.act(zonecfg::delete(self.name)).await?))?,
            // Deleting an installed zone would orphan its dataset.
            Some(state) => return Err(Trouble::passing(format!("zone {} is still {state:?}", self.name))),
        }
        match self.state().await? {
            None => Ok(()),
            Some(state) => Err(Trouble::passing(format!("zone {} is still {state:?}", self.name))),
        }
    }

    /// Never begins with `zoneadm halt`, which would wait half an hour for the guest.
    pub(super) async fn halt(&self) -> Result<(), Trouble> {
        let alive = |state: Option<&State>| {
            matches!(
                state,
                Some(State::Running | State::Ready | State::ShuttingDown | State::Down)
            )
        };
        if !alive(self.state().await?.as_ref()) {
            return Ok(());
        }
        // Its failure says that the virtual machine is gone already, or nothing at all: the state decides.
        let _said = self.act(bhyvectl::power_off(self.name)).await?;
        let ended = |state: Option<&State>| !matches!(state, Some(State::Running));
        if !ended(self.host.wait(self.name, POWER, ended).await?.as_ref()) {
            let _said = self.act(bhyvectl::kill(self.name)).await?;
            self.host.wait(self.name, POWER, ended).await?;
        }
        let mut said = Ok(());
        let state = self.state().await?;
        if alive(state.as_ref()) {
            said = zoneadm::done(&self.act(zoneadm::halt(self.name)).await?);
        }
        let state = self.host.wait(self.name, TEARDOWN, |state| !alive(state)).await?;
        if alive(state.as_ref()) {
            let words = said.err().map(|error| format!(": {error}")).unwrap_or_default();
            return Err(Trouble::passing(format!(
                "zone {} hangs in {state:?}{words}; a host that cannot end its zones needs a reboot",
                self.name
            )));
        }
        if vmm(self.name).exists() {
            let _said = self.act(bhyvectl::destroy(self.name)).await?;
        }
        Ok(())
    }

    async fn uninstall(&self) -> Result<(), Trouble> {
        if !matches!(self.state().await?, Some(State::Installed | State::Incomplete)) {
            return Ok(());
        }
        let output = self.act(zoneadm::uninstall(self.name)).await?;
        let Err(error) = unless_absent(zoneadm::done(&output)) else {
            return Ok(());
        };
        if error.said.contains("is not a directory") {
            // Its data is gone already.
            zoneadm::done(&self.act(zoneadm::mark_configured(self.name)).await?)?;
            return Ok(());
        }
        if matches!(self.state().await?, Some(State::Configured) | None) {
            return Ok(());
        }
        Err(error.into())
    }

    /// The zone's own filesystem, where its uninstallation left it.
    async fn zonepath(&self) -> Result<(), Trouble> {
        match self.host.whose_dataset(self.zonepath, self.name).await? {
            Whose::Nobodys => Ok(()),
            Whose::Anothers(why) => Err(Trouble::lasting(format!("{why}; it is left alone"))),
            Whose::Ours => {
                if self.host.zones().await?.iter().any(|zone| zone.zonepath == self.path) {
                    return Err(Trouble::passing(format!("a zone still lies at {}", self.path)));
                }
                Ok(unless_absent(zfs::done(
                    &self.act(zfs::destroy_zonepath(self.zonepath)).await?,
                ))?)
            }
        }
    }

    async fn network(&self, network: &SlotNetwork) -> Result<(), Trouble> {
        let [host, guest] = self.host.vnics(network).await?;
        for whose in [&host, &guest] {
            if let Whose::Anothers(why) = whose {
                return Err(Trouble::lasting(format!("{why}; it is left alone")));
            }
        }
        if host == Whose::Ours {
            unless_absent(ipadm::done(&self.act(ipadm::delete_address(&network.host)).await?))?;
            unless_absent(ipadm::done(&self.act(ipadm::delete_interface(&network.host)).await?))?;
        }
        for (whose, link) in [(guest, &network.guest), (host, &network.host)] {
            if whose == Whose::Ours {
                unless_absent(dladm::done(&self.act(dladm::delete_vnic(link)).await?))?;
            }
        }
        unless_absent(dladm::done(&self.act(dladm::delete_stub(&network.stub)).await?))?;
        match self.host.vnics(network).await? {
            [Whose::Nobodys, Whose::Nobodys] => Ok(()),
            _ => Err(Trouble::passing(format!("VNICs of {} are still there", network.stub))),
        }
    }
}
