//! The Machine port on bhyve zones.
//!
//! ```text
//!  prepare: admit (slot + memory, record) ─▶ clone ║ zone ║ link ─▶ seed ─▶ Prepared
//!  start:   read back links, protection, rules, zone ─▶ zoneadm boot ─▶ Running
//!  wait:    one `zoneadm list` a second for the whole node (`zone_list`) ─▶ Stopped(why)
//!  destroy: power ─▶ halt ─▶ uninstall ─▶ delete ─▶ address ─▶ links ─▶ disk ─▶ record
//! ```
//!
//! **What is there decides, not what was done.** Every call first inspects the host (`observe`) and then acts on the
//! result, so a call that is repeated after a crash goes on where the first one stopped. A preparation that was interrupted
//! is removed and begun again: there is one way to each state.
//!
//! **Nothing is touched by its name alone.** What destroys, halts or renames takes an `Owned`, which only the rule of its kind
//! gives: owner tags on datasets, attributes of zones, the record and MAC of links.
//!
//! **Nothing is booted unread.** Just before a boot the stored link properties, the filter's rules and the zone's
//! configuration are read back and compared with the plan (`create`, `do_start`); a running machine whose protection is gone loses its
//! power.
//!
//! **What has begun comes to its end.** Disk, zone and network are made side by side; when one fails the others are waited
//! for, then the first failure is returned. No command is killed in the middle, as half of one is harder to name than a whole.

mod consoles;
mod observe;
mod periodic_checks;
mod wait;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use super::{
    console::Attached,
    create::Create,
    destroy::Destroy,
    plan::{MachinePlan, PlanError, RUN, Wanted},
    record::{Room, ZoneRecord, ZoneRecords},
    zone_list::ZoneList,
};
use crate::{
    config::{Image, Zone},
    files,
    machine::{
        Console, Endpoints, ListenAt, MachineError, MachineSpec, Machines, Observed, Operation, OwnedMachine,
        locks::Locks,
        seed::{self, GUEST_HOME},
        step_error::StepError,
        zone::{
            command::{
                dladm, ipf, zfs,
                zoneadm::{self, State},
            },
            host::{Host, Ownership, timeout_scale::TimeoutScale},
        },
    },
    model::{
        illumos::{
            names::{DatasetName, Unfit},
            network::{Slot, SlotNetwork},
        },
        names::{Label, MachineName, NodeName},
    },
};
use async_trait::async_trait;

/// With less left no machine is begun.
const SPACE: u64 = 1 << 30;

/// What the zone back end needs.
#[derive(Debug, Clone)]
pub struct Options {
    /// The node that owns the machines.
    pub node: NodeName,
    /// The zone section of the configuration.
    pub zone: Zone,
    /// Images by label.
    pub images: BTreeMap<Label, Image>,
    /// The agent's binary for the guests.
    pub agent: PathBuf,
    /// What must not outlive a boot of the host: normally [`RUN`].
    pub run: PathBuf,
    /// The scale of all time limits.
    pub timeout_scale: TimeoutScale,
    /// What all machines may have together, in MiB; whoever calls may ask for more.
    pub memory_mib: Option<u64>,
}

impl Options {
    /// With the usual place for what does not outlive a boot.
    #[must_use]
    pub fn new(node: NodeName, zone: Zone, images: BTreeMap<Label, Image>, agent: PathBuf) -> Self {
        Self {
            node,
            zone,
            images,
            agent,
            run: RUN.into(),
            timeout_scale: TimeoutScale::default(),
            memory_mib: None,
        }
    }
}

/// The zone back end. It does nothing by itself: what an earlier process left is found by the port's calls.
#[must_use]
pub fn open(options: Options) -> Arc<dyn Machines> {
    Arc::new(Zones {
        host: Host {
            node: options.node.to_string(),
            timeout_scale: options.timeout_scale,
        },
        zone_list: ZoneList::default(),
        records: ZoneRecords::new(options.run.join("machines")),
        consoles: Mutex::default(),
        strays: Mutex::default(),
        attaching: Locks::default(),
        locks: Locks::default(),
        options,
    })
}

#[derive(Debug)]
struct Zones {
    options: Options,
    host: Host,
    /// What all waiting calls share.
    zone_list: ZoneList,
    records: ZoneRecords,
    /// The consoles that this process reads.
    consoles: Mutex<HashMap<MachineName, Attached>>,
    /// Slots whose links were nobody's at the last poll.
    strays: Mutex<BTreeSet<Slot>>,
    /// One connects to a console at a time.
    attaching: Locks,
    locks: Locks,
}

/// A console has one reader: who keeps machines next must find it free.
impl Drop for Zones {
    fn drop(&mut self) {
        let consoles = self.consoles.get_mut().unwrap_or_else(PoisonError::into_inner);
        consoles.values().for_each(Attached::abort);
    }
}

impl From<PlanError> for StepError {
    fn from(error: PlanError) -> Self {
        Self::permanent(error)
    }
}

impl From<Unfit> for StepError {
    fn from(error: Unfit) -> Self {
        Self::permanent(error)
    }
}

impl Zones {
    fn below(&self, kind: &str, name: &MachineName) -> Result<DatasetName, Unfit> {
        self.options.zone.dataset.child(kind)?.child(name.as_str())
    }

    fn console_dir(&self, name: &MachineName) -> PathBuf {
        self.options.run.join("console").join(name.as_str())
    }

    fn network(&self, record: &ZoneRecord) -> Result<Option<SlotNetwork>, Unfit> {
        match Slot::new(record.slot) {
            Some(slot) => SlotNetwork::of(&self.options.node, self.options.zone.network, slot),
            None => Ok(None),
        }
    }

    fn endpoints_of(&self, slot: Slot) -> Option<Endpoints> {
        let (host, guest) = self.options.zone.network.addresses(slot)?;
        let port = self.options.zone.port;
        let git = SocketAddr::from((host, port.saturating_add(1)));
        let at = |address| ListenAt::Slot {
            address,
            guest: guest.into(),
        };
        Some(Endpoints {
            agent: at(SocketAddr::from((host, port))),
            git: at(git),
            git_authority: git.to_string(),
            home: GUEST_HOME.into(),
        })
    }

    async fn newest(&self, label: &Label) -> Result<u32, StepError> {
        let image = self.options.zone.dataset.child("images")?.child(label.as_str())?;
        let output = self.host.run(zfs::list_snapshots(&image)).await?;
        zfs::versions(&image, &output)?.pop().ok_or_else(|| {
            StepError::permanent(format!("there is no golden disk below {image}: import the image first"))
        })
    }

    /// A clone costs nothing, but a guest that finds no room to write into is of no use.
    async fn has_space(&self) -> Result<(), StepError> {
        let machines = self.options.zone.dataset.child("machines")?;
        match zfs::available(&self.host.run(zfs::space(&machines)).await?)? {
            Some(left) if left < SPACE => Err(StepError::retryable(format!(
                "only {} MiB are free below {machines}: the pool, or a quota above, is full",
                left >> 20
            ))),
            _ => Ok(()),
        }
    }

    async fn do_prepare(&self, spec: &MachineSpec) -> Result<Endpoints, StepError> {
        let name = &spec.name;
        let image = self.options.images.get(&spec.image);
        let image =
            image.ok_or_else(|| StepError::permanent(format!("no image is configured for label {}", spec.image)))?;
        if self
            .host
            .zone(name)
            .await?
            .is_some_and(|zone| zone.state == State::Running)
        {
            return Err(StepError::permanent("it runs already; destroy it first"));
        }
        // What an interrupted preparation left is removed and made again, from the beginning.
        if self.records.read(name)?.is_some() {
            self.do_destroy(name).await?;
        }
        let version = self.newest(&spec.image).await?;
        self.has_space().await?;
        // A link that is there before its slot is chosen is somebody's, whatever its name: the slot is passed over.
        let links = dladm::links(&self.host.run(dladm::show_links()).await?)?;
        let make = |slot: Slot| {
            let network = SlotNetwork::of(&spec.node, self.options.zone.network, slot).ok()??;
            let taken = network.links().iter().any(|link| links.contains(&link.to_string()));
            (!taken).then_some(())?;
            Some(ZoneRecord {
                slot: slot.number(),
                memory_mib: spec.memory_mib,
                endpoints: self.endpoints_of(slot)?,
                prepared: false,
                started: false,
                kept: false,
                released: false,
            })
        };
        let room = Room {
            slots: self.options.zone.network.slots(),
            memory_mib: self.options.memory_mib,
        };
        let mut record = self.records.choose(name, room, make).map_err(StepError::retryable)?;
        let slot = Slot::new(record.slot).ok_or_else(|| StepError::permanent("its slot is no slot"))?;
        let plan = MachinePlan::new(Wanted {
            spec,
            image,
            version,
            slot,
            zone: &self.options.zone,
        })?;
        let (for_seed, addresses, agent) = (spec.clone(), plan.addresses.clone(), self.options.agent.clone());
        let bytes = tokio::task::spawn_blocking(move || seed::image_bytes(&for_seed, &addresses, &agent)).await;
        let seed = bytes
            .map_err(StepError::retryable)?
            .map_err(|error| StepError::permanent(format!("cannot make the seed disk: {error}")))?;
        let create = Create {
            host: &self.host,
            plan: &plan,
            spec,
            seed,
            bandwidth: &self.options.zone.bandwidth,
        };
        create.run().await?;
        record.prepared = true;
        self.records.write(name, &record)?;
        Ok(record.endpoints)
    }

    async fn do_start(&self, name: &MachineName) -> Result<(), StepError> {
        let Some(mut record) = self.records.read(name)?.filter(|record| record.prepared) else {
            return Err(StepError::permanent("it does not exist; prepare it first"));
        };
        let state = self.host.zone(name).await?.map(|zone| zone.state);
        match state {
            Some(State::Running) => return Ok(()),
            Some(State::Installed) if !record.started => {}
            _ if record.started => return Err(StepError::retryable("it has run and ended; a machine runs once")),
            other => return Err(StepError::retryable(format!("its zone is {other:?} and cannot boot"))),
        }
        if !matches!(self.host.zone_ownership(name).await?, Ownership::Ours(_)) {
            return Err(StepError::permanent("its zone does not carry our owner tags"));
        }
        let network = self
            .network(&record)?
            .ok_or_else(|| StepError::permanent("its slot has no network"))?;
        if !self
            .host
            .is_protected(&network, Some(&self.options.zone.bandwidth))
            .await?
        {
            // zoneadmd clears it at every halt.
            return Err(StepError::retryable(format!(
                "link {} is not protected as it should be: protection, allowed address, MTU or rate (`zone.bandwidth`)",
                network.guest
            )));
        }
        let zone = &self.options.zone;
        if let Some(wrong) = ipf::wrong(zone.network, zone.port, &self.host.run(ipf::list()).await?)? {
            return Err(StepError::permanent(format!(
                "ipfilter does not hold the guests back: {wrong}"
            )));
        }
        // Before the guest's first word: what nobody reads is lost.
        zoneadm::done(&self.host.run(zoneadm::daemon(name)).await?)?;
        self.read_console(name).await?;
        record.started = true;
        self.records.write(name, &record)?;
        let said = self.host.run(zoneadm::boot(name)).await;
        self.zone_list.forget().await;
        Ok(zoneadm::done(&said?)?)
    }

    fn removal<'a>(
        &'a self,
        name: &'a MachineName,
        disk: &'a DatasetName,
        zonepath: &'a DatasetName,
        network: Option<&'a SlotNetwork>,
    ) -> Destroy<'a> {
        Destroy {
            host: &self.host,
            name,
            disk,
            zonepath,
            path: format!("{}/{name}", self.options.zone.path),
            network,
        }
    }

    async fn do_destroy(&self, name: &MachineName) -> Result<(), StepError> {
        let record = self.records.read(name)?;
        let network = record
            .as_ref()
            .map(|record| self.network(record))
            .transpose()?
            .flatten();
        // zoneadmd does not end while somebody reads.
        self.leave_console(name).await;
        let (disk, zonepath) = (self.below("machines", name)?, self.below("zones", name)?);
        self.removal(name, &disk, &zonepath, network.as_ref()).run().await?;
        self.zone_list.forget().await;
        files::remove_with_unfinished(&self.options.run.join(format!("{name}.zonecfg")))?;
        let console = self.console_dir(name);
        match std::fs::symlink_metadata(&console) {
            Ok(meta) if meta.is_dir() => files::remove_tree(&console)?,
            Ok(_) => std::fs::remove_file(&console)?,
            Err(_) => {}
        }
        Ok(self.records.remove(name)?)
    }
}

fn of_this_node(error: StepError) -> MachineError {
    MachineError {
        operation: Operation::Observe,
        machine: "of this node".to_owned(),
        reason: error.reason,
        retryable: error.retryable,
    }
}

#[async_trait]
impl Machines for Zones {
    fn backend(&self) -> &'static str {
        "zone"
    }

    async fn prepare(&self, spec: &MachineSpec) -> Result<Endpoints, MachineError> {
        let _lock = self.locks.lock(&spec.name).await;
        self.do_prepare(spec)
            .await
            .map_err(StepError::of(Operation::Prepare, &spec.name))
    }

    async fn endpoints(&self, name: &MachineName) -> Result<Option<Endpoints>, MachineError> {
        let record = self
            .records
            .read(name)
            .map_err(StepError::from)
            .map_err(StepError::of(Operation::Observe, name))?;
        Ok(record.map(|record| record.endpoints))
    }

    async fn start(&self, name: &MachineName) -> Result<(), MachineError> {
        let _lock = self.locks.lock(name).await;
        self.do_start(name).await.map_err(StepError::of(Operation::Start, name))
    }

    async fn console(&self, name: &MachineName, from: u64) -> Result<Console, MachineError> {
        self.recorded_console(name, from)
            .await
            .map_err(StepError::of(Operation::Console, name))
    }

    async fn stop(&self, name: &MachineName, _grace: Duration) -> Result<(), MachineError> {
        // A zone's halt would ask the guest and wait half an hour; what matters to a job is said over gRPC.
        let _lock = self.locks.lock(name).await;
        let stop = async {
            let Ownership::Ours(zone) = self.host.zone_ownership(name).await? else {
                return Ok(());
            };
            let state = self.host.zone(name).await?.map(|zone| zone.state);
            if state == Some(State::Running) {
                self.records.note_power(name, "it was stopped");
            }
            let (disk, zonepath) = (self.below("machines", name)?, self.below("zones", name)?);
            let ended = self.removal(name, &disk, &zonepath, None).halt(&zone).await;
            self.zone_list.forget().await;
            ended
        };
        stop.await.map_err(StepError::of(Operation::Stop, name))
    }

    async fn keep(&self, name: &MachineName) -> Result<(), MachineError> {
        let _lock = self.locks.lock(name).await;
        self.do_keep(name).await.map_err(StepError::of(Operation::Keep, name))
    }

    async fn write_console(&self, name: &MachineName, bytes: &[u8]) -> Result<(), MachineError> {
        let _lock = self.locks.lock(name).await;
        self.do_write(name, bytes)
            .await
            .map_err(StepError::of(Operation::Write, name))
    }

    async fn release_console(&self, name: &MachineName) -> Result<(), MachineError> {
        let _lock = self.locks.lock(name).await;
        self.do_release(name)
            .await
            .map_err(StepError::of(Operation::Release, name))
    }

    async fn destroy(&self, name: &MachineName) -> Result<(), MachineError> {
        let _lock = self.locks.lock(name).await;
        self.do_destroy(name)
            .await
            .map_err(StepError::of(Operation::Destroy, name))
    }

    async fn observe(&self, name: &MachineName) -> Result<Observed, MachineError> {
        let inspect = async {
            if self.boots(name).await? {
                return Ok(Observed::Running);
            }
            let state = self.host.zone(name).await?.map(|zone| zone.state);
            if state.is_some() && !matches!(self.host.zone_ownership(name).await?, Ownership::Ours(_)) {
                return Ok(Observed::Absent);
            }
            self.inspect(name, state.as_ref()).await
        };
        inspect.await.map_err(StepError::of(Operation::Observe, name))
    }

    async fn list(&self) -> Result<Vec<OwnedMachine>, MachineError> {
        self.list_machines().await.map_err(of_this_node)
    }

    async fn findings(&self) -> Result<Vec<String>, MachineError> {
        self.list_findings().await.map_err(of_this_node)
    }

    async fn wait_stopped(&self, name: &MachineName) -> Result<Observed, MachineError> {
        self.until_stopped(name).await
    }
}
