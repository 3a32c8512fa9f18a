//! Makes a machine: disk, zone and network side by side, each act followed by a query of what it did.

use std::time::Duration;

use super::{plan::MachinePlan, zone_files};
use crate::{
    exec::{Cmd, Output},
    files,
    machine::{
        MachineSpec,
        step_error::StepError,
        zone::{
            command::{dladm, ipadm, zoneadm, zonecfg},
            host::{Host, Ownership, undone},
        },
    },
    model::illumos::network::SlotNetwork,
};

/// A new address is `ok` after this long.
const ADDRESS: Duration = Duration::from_secs(10);
/// Interval between two polls of it.
const POLL: Duration = Duration::from_millis(100);

/// A plan being carried out.
pub(in crate::machine::zone) struct Create<'a> {
    pub(in crate::machine::zone) host: &'a Host,
    pub(in crate::machine::zone) plan: &'a MachinePlan,
    pub(in crate::machine::zone) spec: &'a MachineSpec,
    /// The seed disk's bytes.
    pub(in crate::machine::zone) seed: Vec<u8>,
    pub(in crate::machine::zone) bandwidth: &'a crate::model::illumos::names::Bandwidth,
}

impl Create<'_> {
    /// Everything up to what booting takes.
    pub(in crate::machine::zone) async fn run(&self) -> Result<(), StepError> {
        // All of them to their ends: to leave the others when one fails would kill their commands midway.
        let disk = self.host.make_disk(self.spec, &self.plan.origin, &self.plan.disk);
        let (disk, zone, network) = tokio::join!(disk, self.zone(), self.network());
        disk.and(zone).and(network)?;
        self.protected().await
    }

    async fn act(&self, command: Cmd) -> Result<Output, StepError> {
        self.host.run(command).await
    }

    pub(in crate::machine::zone) async fn zone(&self) -> Result<(), StepError> {
        let (plan, name) = (self.plan, &self.spec.name);
        // ZFS would mount the child all the same, over a directory that hides when its parent comes.
        let parent = self.host.dataset(&plan.zones).await?;
        if !parent.is_some_and(|parent| parent.mounted) {
            return Err(StepError::permanent(format!(
                "{zones} is not mounted: `zfs mount {zones}`, after removing what lies at its mountpoint",
                zones = plan.zones
            )));
        }
        self.host.make_zonepath(self.spec, &plan.zonepath).await?;
        files::write_private(&plan.config_file, plan.config.to_file().as_bytes())?;
        let said = zonecfg::done(&self.act(zonecfg::configure(name, &plan.config_file)).await?);
        match self.host.exported(name).await? {
            None => return Err(undone(&format!("zone {name} was not configured"), said)),
            Some(exported) => {
                if let Some(difference) = exported.difference(&plan.config) {
                    return Err(undone(
                        &format!("zone {name} is not as it was meant: {difference}"),
                        said,
                    ));
                }
            }
        }
        std::fs::remove_file(&plan.config_file)?;
        let said = zoneadm::done(&self.act(zoneadm::install(name)).await?);
        let state = self.host.zone(name).await?.map(|zone| zone.state);
        if state != Some(zoneadm::State::Installed) {
            return Err(undone(&format!("zone {name} was not installed, it is {state:?}"), said));
        }
        // Into the dataset, and not into a directory of its name that hides when the dataset comes.
        if !self
            .host
            .dataset(&plan.zonepath)
            .await?
            .is_some_and(|seen| seen.mounted)
        {
            return Err(StepError::retryable(format!(
                "{} is not mounted any more",
                plan.zonepath
            )));
        }
        let path = std::path::PathBuf::from(plan.config.zonepath.to_string());
        if zone_files::tail(&path, &["root", "etc"], "uuid", 100).is_none() {
            return Err(undone(&format!("zone {name} has no root/etc/uuid"), said));
        }
        zone_files::create(&path, &["root"], "seed.img", &self.seed)?;
        // The brand's own log lines in one time zone.
        zone_files::create(&path, &["root", "etc"], "bhyve.env", b"TZ=UTC\n")?;
        Ok(())
    }

    pub(in crate::machine::zone) async fn network(&self) -> Result<(), StepError> {
        let network = &self.plan.network;
        let stub = dladm::done(&self.act(dladm::create_stub(&network.stub)).await?);
        let (host, guest) = tokio::join!(
            self.act(dladm::create_vnic(&network.stub, network.host_mac, &network.host)),
            self.act(dladm::create_vnic(&network.stub, network.guest_mac, &network.guest)),
        );
        let said = stub.and(dladm::done(&host?)).and(dladm::done(&guest?));
        for (whose, link) in self
            .host
            .vnics(network)
            .await?
            .into_iter()
            .zip([&network.host, &network.guest])
        {
            match whose {
                Ownership::Ours(_) => {}
                Ownership::Absent => return Err(undone(&format!("VNIC {link} was not made"), said)),
                Ownership::Foreign(why) => return Err(StepError::permanent(format!("{why}; it is left alone"))),
            }
        }
        let (host, guest) = tokio::join!(
            self.act(dladm::set_host(network)),
            self.act(dladm::protect(network, self.bandwidth)),
        );
        dladm::done(&host?)?;
        dladm::done(&guest?)?;
        let said = ipadm::done(&self.act(ipadm::create_address(network)).await?);
        if !self.address(network, said.is_ok()).await? {
            return Err(undone(
                &format!("{} has no address {}", network.host, network.host_address),
                said,
            ));
        }
        let said = ipadm::done(&self.act(ipadm::forward_nothing(&network.host)).await?);
        if self.host.is_host_end_ready(network).await? {
            return Ok(());
        }
        let what = format!("{} forwards packets, or has not the MTU of 1500", network.host);
        Err(undone(&what, said))
    }

    /// Whether the slot's address is usable. One that was made may have to be looked for on the link first, which is
    /// waited for.
    async fn address(&self, network: &SlotNetwork, made: bool) -> Result<bool, StepError> {
        let until = tokio::time::Instant::now() + self.host.timeout_scale.scaled(ADDRESS);
        loop {
            let usable = self.host.has_address(network).await?;
            if usable || !made || tokio::time::Instant::now() >= until {
                return Ok(usable);
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// A guest whose link is not held to its own addresses is never booted.
    pub(in crate::machine::zone) async fn protected(&self) -> Result<(), StepError> {
        if self.host.is_protected(&self.plan.network, Some(self.bandwidth)).await? {
            return Ok(());
        }
        Err(StepError::retryable(format!(
            "link {} is not protected as it should be: protection, allowed address, MTU or rate (`zone.bandwidth`)",
            self.plan.network.guest
        )))
    }
}
