//! Runs the host's commands and inspects what they made. Every act is followed by a query: a command may
//! fail and have done it, or succeed and not.

pub(super) mod index;
pub mod memory;
pub mod privileges;
pub(super) mod timeout_scale;
use std::{path::PathBuf, time::Duration};

use super::command::{
    CommandError, FieldError, dladm, ipadm, zfs,
    zoneadm::{self, State, Zone},
    zonecfg,
};
use crate::{
    exec::{Cmd, Output},
    machine::{
        step_error::StepError,
        zone::{export::Exported, host::timeout_scale::TimeoutScale, owned::Owned},
    },
    model::{
        illumos::{
            names::{Bandwidth, DatasetName, LinkName},
            network::SlotNetwork,
        },
        names::MachineName,
    },
};

impl From<CommandError> for StepError {
    fn from(error: CommandError) -> Self {
        if error.is_retryable() {
            Self::retryable(error)
        } else {
            Self::permanent(error)
        }
    }
}

impl From<dladm::ShowError> for StepError {
    fn from(error: dladm::ShowError) -> Self {
        Self::with_cause(&error)
    }
}

impl From<FieldError> for StepError {
    fn from(error: FieldError) -> Self {
        Self::with_cause(&error)
    }
}

/// Interval between two polls of a zone that is about to change.
const POLL: Duration = Duration::from_millis(100);

/// The owner of a thing on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ownership<T> {
    /// There is none.
    Absent,
    /// It carries this node's owner tags for this machine.
    Ours(Owned<T>),
    /// It is somebody else's, and why that is known.
    Foreign(String),
}

/// The host.
#[derive(Debug, Clone)]
pub struct Host {
    /// This node's name, as the owner tags have it.
    pub node: String,
    /// The scale of all time limits.
    pub timeout_scale: TimeoutScale,
}

impl Host {
    pub(super) async fn run(&self, command: Cmd) -> Result<Output, StepError> {
        Ok(self.timeout_scale.command(command).run().await?)
    }

    /// Every zone of the host.
    pub(super) async fn zones(&self) -> Result<Vec<Zone>, StepError> {
        Ok(zoneadm::zones(&self.run(zoneadm::list()).await?)?)
    }

    /// One zone; `None` when there is none.
    pub(super) async fn zone(&self, name: &MachineName) -> Result<Option<Zone>, StepError> {
        Ok(self.zones().await?.into_iter().find(|zone| zone.name == name.as_str()))
    }

    /// A zone's configuration.
    pub(super) async fn exported(&self, name: &MachineName) -> Result<Option<Exported>, StepError> {
        let output = self.run(zonecfg::export(name)).await?;
        Ok(zonecfg::exported(&output)?.map(|text| Exported::parse(&text)))
    }

    /// The owner of a zone, by the attributes in its configuration.
    pub(super) async fn zone_ownership(&self, name: &MachineName) -> Result<Ownership<MachineName>, StepError> {
        let Some(exported) = self.exported(name).await? else {
            return Ok(Ownership::Absent);
        };
        let owner = (exported.attr("hci-node"), exported.attr("hci-attempt"));
        let attempt = name.attempt().to_string();
        Ok(if owner == (Some(self.node.as_str()), Some(attempt.as_str())) {
            Ownership::Ours(Owned::by_rule(name.clone()))
        } else {
            Ownership::Foreign(format!(
                "zone {name} does not carry the owner tags of node {}",
                self.node
            ))
        })
    }

    /// A dataset, as far as it concerns us.
    pub(super) async fn dataset(&self, name: &DatasetName) -> Result<Option<zfs::Dataset>, StepError> {
        Ok(zfs::dataset(name, &self.run(zfs::query(name)).await?)?)
    }

    /// The owner of a dataset, by its own local properties.
    pub(super) async fn dataset_ownership(
        &self,
        name: &DatasetName,
        machine: &MachineName,
    ) -> Result<Ownership<DatasetName>, StepError> {
        Ok(match self.dataset(name).await? {
            None => Ownership::Absent,
            Some(dataset) if self.is_ours(&dataset, machine) => Ownership::Ours(Owned::by_rule(name.clone())),
            Some(_) => Ownership::Foreign(self.unmarked(name)),
        })
    }

    /// Whether a dataset carries this node's owner tags for this machine.
    pub(super) fn is_ours(&self, dataset: &zfs::Dataset, machine: &MachineName) -> bool {
        dataset.node.as_deref() == Some(self.node.as_str())
            && dataset.attempt.as_deref() == Some(machine.attempt().to_string().as_str())
    }

    /// What is said of a dataset that does not.
    pub(super) fn unmarked(&self, name: &DatasetName) -> String {
        format!(
            "{name} does not carry the owner tags of node {} and this attempt",
            self.node
        )
    }

    /// Which of a slot's two VNICs exist.
    pub(super) async fn vnics(&self, network: &SlotNetwork) -> Result<[Ownership<LinkName>; 2], StepError> {
        let vnics = dladm::vnics(&self.run(dladm::show_vnics()).await?)?;
        Ok(vnic_ownership(&vnics, network))
    }

    /// Whether the host's end of a slot is as it must be before a guest may run: frames of an ordinary size, and
    /// nothing forwarded.
    pub(super) async fn is_host_end_ready(&self, network: &SlotNetwork) -> Result<bool, StepError> {
        let (mtu, forwarding) = tokio::join!(
            self.run(dladm::show_mtu(&network.host)),
            self.run(ipadm::show_forwarding(&network.host)),
        );
        Ok(dladm::is_ordinary(&mtu?)? && !ipadm::forwards(&forwarding?)?)
    }

    /// Whether the slot's address can be listened on.
    pub(super) async fn has_address(&self, network: &SlotNetwork) -> Result<bool, StepError> {
        let output = self.run(ipadm::show_address(&network.host)).await?;
        Ok(ipadm::is_usable(network, &output)?)
    }

    /// Whether the guest's link is held to what it may send, and to a rate where one is given.
    pub(super) async fn is_protected(
        &self,
        network: &SlotNetwork,
        bandwidth: Option<&Bandwidth>,
    ) -> Result<bool, StepError> {
        let output = self.run(dladm::show_protection(&network.guest)).await?;
        Ok(dladm::is_protected(network, bandwidth, &output)?)
    }

    /// Polls a zone until its state is `wanted`, for at most `limit`; returns its last state.
    pub(super) async fn wait(
        &self,
        name: &MachineName,
        limit: Duration,
        wanted: impl Fn(Option<&State>) -> bool,
    ) -> Result<Option<State>, StepError> {
        let until = tokio::time::Instant::now() + self.timeout_scale.scaled(limit);
        loop {
            let state = self.zone(name).await?.map(|zone| zone.state);
            if wanted(state.as_ref()) || tokio::time::Instant::now() >= until {
                return Ok(state);
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

/// The owners of a slot's VNICs, host's and guest's: exact name, stub and address. One of the name that is otherwise is
/// somebody else's.
pub(super) fn vnic_ownership(vnics: &[dladm::Vnic], network: &SlotNetwork) -> [Ownership<LinkName>; 2] {
    [(&network.host, network.host_mac), (&network.guest, network.guest_mac)].map(|(link, mac)| {
        match vnics.iter().find(|vnic| vnic.link == link.to_string()) {
            None => Ownership::Absent,
            Some(vnic) if vnic.over == network.stub.to_string() && vnic.mac == Some(mac) => {
                Ownership::Ours(Owned::by_rule(link.clone()))
            }
            Some(vnic) => Ownership::Foreign(format!(
                "VNIC {link} is over {} and has not the address that ours would have",
                vnic.over
            )),
        }
    })
}

/// What an act left undone: the command's own words, or that nothing was to be seen of it.
pub(super) fn undone(what: &str, said: Result<(), impl std::fmt::Display>) -> StepError {
    match said {
        Err(error) => StepError::retryable(format!("{what}: {error}")),
        Ok(()) => StepError::retryable(format!("{what}, though the command said that it did")),
    }
}

/// An absent thing is a removed one.
pub(super) fn unless_absent(result: Result<(), CommandError>) -> Result<(), CommandError> {
    match result {
        Err(error) if error.is_absent() => Ok(()),
        other => other,
    }
}

/// The virtual machine of a zone, which may outlive its bhyve and keep its memory.
pub(super) fn vmm(name: &MachineName) -> PathBuf {
    PathBuf::from("/dev/vmm").join(name.as_str())
}
