//! What is checked with every list: that running machines are still held to their network, that no links are left over,
//! and what only a person can mend.

use std::{collections::BTreeSet, sync::PoisonError};

use super::Zones;
use crate::{
    machine::{
        step_error::StepError,
        zone::{
            command::{bhyvectl, dladm, zfs, zoneadm::State},
            host::{Ownership, vnic_ownership},
            life::destroy,
            owned::Owned,
        },
    },
    model::{
        illumos::network::{Slot, SlotNetwork},
        names::MachineName,
    },
};

impl Zones {
    /// Takes the power of a running machine whose link is no longer protected: zoneadmd clears protection at
    /// every halt, and a guest that comes back without it could speak for others. Whether it did.
    pub(super) async fn power_off_unless_protected(&self, name: &Owned<MachineName>) -> Result<bool, StepError> {
        let network = match self.records.read(name)? {
            Some(record) => self.network(&record)?,
            None => None,
        };
        if let Some(network) = network {
            match self.host.is_protected(&network, None).await {
                Ok(true) => return Ok(false),
                Ok(false) => {}
                // A failed query must not end what may be in order; a guest without its link reaches nobody.
                Err(error) => {
                    tracing::warn!(machine = %**name, error = error.reason, "cannot check whether its link is protected");
                    return Ok(false);
                }
            }
        }
        tracing::error!(machine = %**name, "it runs without protection of its link: its power is taken");
        self.records.note_power(name, "its link was not protected any more");
        // It fails when the guest ended by itself; the next poll tells.
        let _said = self.host.run(bhyvectl::power_off(name)).await;
        self.zone_list.forget().await;
        Ok(true)
    }

    /// Removes links that are ours by name and address and whose slot no record names: a slot's record is written
    /// before its links are made and removed after they are, so only a person's hand leaves such, or a doctor that was
    /// killed. A doctor that lives has its own for a moment: what goes was there at the poll before this one, too. Links
    /// in use stay for the next time.
    pub(super) async fn remove_stray_links(&self) -> Result<(), StepError> {
        let vnics = dladm::vnics(&self.host.run(dladm::show_vnics()).await?)?;
        let slots: BTreeSet<Slot> = vnics.iter().filter_map(|vnic| Slot::of_vnic(&vnic.link)).collect();
        // Asked for after the list: a link that was seen has its record.
        let with_record = self.records.slots()?;
        let stray: BTreeSet<Slot> = slots
            .into_iter()
            .filter(|slot| !with_record.contains(&slot.number()))
            .collect();
        let before = {
            let mut strays = self.strays.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *strays, stray.clone())
        };
        for slot in stray.intersection(&before).copied() {
            // Read again for each slot: a preparation may have begun meanwhile.
            if self.records.slots()?.contains(&slot.number()) {
                continue;
            }
            let (zone, node) = (&self.options.zone, &self.options.node);
            let Some(network) = SlotNetwork::of(node, zone.network, slot)? else {
                continue;
            };
            let seen = self.host.vnics(&network).await?;
            if seen.iter().any(|whose| matches!(whose, Ownership::Foreign(_))) {
                continue;
            }
            tracing::warn!(stub = %network.stub, "removing links that belong to no machine");
            if let Err(error) = destroy::links(&self.host, &network).await {
                tracing::warn!(stub = %network.stub, error = error.reason, "they could not be removed now");
            }
        }
        Ok(())
    }

    /// See [`crate::machine::Machines::findings`].
    pub(super) async fn list_findings(&self) -> Result<Vec<String>, StepError> {
        let mut findings = Vec::new();
        for zone in self.host.zones().await? {
            let Ok(name) = zone.name.parse::<MachineName>() else {
                continue;
            };
            match self.host.zone_ownership(&name).await {
                Ok(Ownership::Foreign(why)) => {
                    findings.push(format!("{why}, though it has a machine's name; it is left alone"))
                }
                Err(error) => findings.push(format!("the owner of zone {name} is not known: {}", error.reason)),
                Ok(Ownership::Ours(_)) if matches!(zone.state, State::ShuttingDown | State::Down) => {
                    findings.push(format!(
                        "zone {name} is in state {:?}: unless that passes within ten minutes, the host needs a reboot",
                        zone.state
                    ))
                }
                Ok(Ownership::Ours(_) | Ownership::Absent) => {}
            }
        }
        for kind in ["machines", "zones"] {
            let parent = self.options.zone.dataset.child(kind)?;
            let children =
                zfs::children_by_owner(&parent, &self.options.node, &self.host.run(zfs::list(&parent)).await?)?;
            findings.extend(children.quarantined.iter().map(|name| {
                format!(
                    "{parent}/{name} could not be destroyed and is quarantined: find who holds it with fuser, then zfs \
                     destroy {parent}/{name}"
                )
            }));
            findings.extend(children.others.iter().map(|name| {
                format!(
                    "{parent}/{name} does not carry the owner tag of node {}; it is left alone",
                    self.options.node
                )
            }));
        }
        findings.extend(self.foreign_links().await?);
        Ok(findings)
    }

    /// Links that have names of slots and are not ours, in words.
    async fn foreign_links(&self) -> Result<Vec<String>, StepError> {
        let links = dladm::links(&self.host.run(dladm::show_links()).await?)?;
        let vnics = dladm::vnics(&self.host.run(dladm::show_vnics()).await?)?;
        // Asked after the lists: a link that was seen has its record.
        let with_record = self.records.slots()?;
        let slots: BTreeSet<Slot> = links.iter().filter_map(|link| Slot::of_link(link)).collect();
        let mut foreign = Vec::new();
        for slot in slots {
            let Some(network) = SlotNetwork::of(&self.options.node, self.options.zone.network, slot)? else {
                continue;
            };
            let whose = vnic_ownership(&vnics, &network);
            let any_ours = whose.iter().any(|whose| matches!(whose, Ownership::Ours(_)));
            foreign.extend(whose.into_iter().filter_map(|whose| match whose {
                Ownership::Foreign(why) => Some(format!(
                    "{why}; it is left alone, and slot {} is not used",
                    slot.number()
                )),
                Ownership::Ours(_) | Ownership::Absent => None,
            }));
            if links.contains(&network.stub.to_string()) && !any_ours && !with_record.contains(&slot.number()) {
                foreign.push(format!(
                    "stub {} belongs to no machine; it is left alone, and slot {} is not used",
                    network.stub,
                    slot.number()
                ));
            }
        }
        Ok(foreign)
    }
}
