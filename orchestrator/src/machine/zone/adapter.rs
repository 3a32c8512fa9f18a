//! The Machine port on bhyve zones.

mod guard;
mod wait;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use super::{
    command::{
        ipf, zfs,
        zoneadm::{self, State},
    },
    console::{self, Attached},
    create::Create,
    destroy::Destroy,
    host::{Host, Whose},
    inside,
    patience::Patience,
    plan::{MachinePlan, PlanError, RUN, Wanted},
    record::{Record, Records},
    watch::Watch,
};
use crate::{
    config::{Image, Zone},
    machine::{
        Console, Endpoints, ListenAt, MachineError, MachineSpec, Machines, Observed, Operation, Owned, files,
        locks::Locks,
        seed::{self, GUEST_HOME},
        trouble::Trouble,
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

/// What the zone back end needs.
#[derive(Debug, Clone)]
pub struct Options {
    /// Whose machines they are.
    pub node: NodeName,
    /// Where they lie.
    pub zone: Zone,
    /// Images by label.
    pub images: BTreeMap<Label, Image>,
    /// The agent's binary for the guests.
    pub agent: PathBuf,
    /// What must not outlive a boot of the host: normally [`RUN`].
    pub run: PathBuf,
    /// How long the host is waited for.
    pub patience: Patience,
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
            patience: Patience::default(),
        }
    }
}

/// The zone back end. It does nothing by itself: what an earlier process left is found by the port's calls.
#[must_use]
pub fn open(options: Options) -> Arc<dyn Machines> {
    Arc::new(Zones {
        host: Host {
            node: options.node.to_string(),
            patience: options.patience,
        },
        watch: Watch::default(),
        records: Records::new(options.run.join("machines")),
        consoles: Mutex::default(),
        attaching: Locks::default(),
        locks: Locks::default(),
        options,
    })
}

#[derive(Debug)]
struct Zones {
    options: Options,
    host: Host,
    /// For those who wait.
    watch: Watch,
    records: Records,
    /// Who reads which console.
    consoles: Mutex<HashMap<MachineName, Attached>>,
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

impl From<PlanError> for Trouble {
    fn from(error: PlanError) -> Self {
        Self::lasting(error)
    }
}

impl From<Unfit> for Trouble {
    fn from(error: Unfit) -> Self {
        Self::lasting(error)
    }
}

impl Zones {
    fn below(&self, kind: &str, name: &MachineName) -> Result<DatasetName, Unfit> {
        self.options.zone.dataset.child(kind)?.child(name.as_str())
    }

    fn console_dir(&self, name: &MachineName) -> PathBuf {
        self.options.run.join("console").join(name.as_str())
    }

    fn network(&self, record: &Record) -> Result<Option<SlotNetwork>, Unfit> {
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

    async fn newest(&self, label: &Label) -> Result<u32, Trouble> {
        let image = self.options.zone.dataset.child("images")?.child(label.as_str())?;
        let output = self.host.run(zfs::list_snapshots(&image)).await?;
        zfs::versions(&image, &output)?
            .pop()
            .ok_or_else(|| Trouble::lasting(format!("there is no golden disk below {image}: import the image first")))
    }

    async fn do_prepare(&self, spec: &MachineSpec) -> Result<Endpoints, Trouble> {
        let name = &spec.name;
        let image = self.options.images.get(&spec.image);
        let image =
            image.ok_or_else(|| Trouble::lasting(format!("no image is configured for label {}", spec.image)))?;
        if self
            .host
            .zone(name)
            .await?
            .is_some_and(|zone| zone.state == State::Running)
        {
            return Err(Trouble::lasting("it runs already; destroy it first"));
        }
        // Whatever an interrupted preparation left is made anew, from the beginning.
        if self.records.read(name)?.is_some() {
            self.do_destroy(name).await?;
        }
        let version = self.newest(&spec.image).await?;
        let slots = self.options.zone.network.slots();
        let make = |slot: Slot| {
            Some(Record {
                slot: slot.number(),
                endpoints: self.endpoints_of(slot)?,
                prepared: false,
                started: false,
                kept: false,
                released: false,
            })
        };
        let record = self.records.choose(name, slots, make)?;
        let mut record = record.ok_or_else(|| {
            Trouble::passing(format!(
                "all {slots} networks of {} are in use",
                self.options.zone.network
            ))
        })?;
        let slot = Slot::new(record.slot).ok_or_else(|| Trouble::lasting("its slot is no slot"))?;
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
            .map_err(Trouble::passing)?
            .map_err(|error| Trouble::lasting(format!("cannot make the seed disk: {error}")))?;
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

    async fn do_start(&self, name: &MachineName) -> Result<(), Trouble> {
        let Some(mut record) = self.records.read(name)?.filter(|record| record.prepared) else {
            return Err(Trouble::lasting("it does not exist; prepare it first"));
        };
        let state = self.host.zone(name).await?.map(|zone| zone.state);
        match state {
            Some(State::Running) => return Ok(()),
            Some(State::Installed) if !record.started => {}
            _ if record.started => return Err(Trouble::passing("it has run and ended; a machine runs once")),
            other => return Err(Trouble::passing(format!("its zone is {other:?} and cannot boot"))),
        }
        if self.host.whose_zone(name).await? != Whose::Ours {
            return Err(Trouble::lasting("its zone does not carry our marks"));
        }
        let network = self
            .network(&record)?
            .ok_or_else(|| Trouble::lasting("its slot has no network"))?;
        if !self.host.is_protected(&network).await? {
            // zoneadmd clears it at every halt.
            return Err(Trouble::passing(format!("link {} is not protected", network.guest)));
        }
        let zone = &self.options.zone;
        if let Some(rule) = ipf::missing(zone.network, zone.port, &self.host.run(ipf::list()).await?)? {
            return Err(Trouble::lasting(format!(
                "ipfilter does not hold the guests back: the rule `{rule}` is not in force"
            )));
        }
        // Before the guest's first word: what nobody reads is lost.
        zoneadm::done(&self.host.run(zoneadm::daemon(name)).await?)?;
        self.read_console(name).await?;
        record.started = true;
        self.records.write(name, &record)?;
        let said = self.host.run(zoneadm::boot(name)).await;
        self.watch.forget().await;
        Ok(zoneadm::done(&said?)?)
    }

    /// The way to a console that is read here.
    fn input(&self, name: &MachineName) -> Option<console::Input> {
        let consoles = self.consoles.lock().unwrap_or_else(PoisonError::into_inner);
        consoles
            .get(name)
            .filter(|console| console.lives())
            .map(Attached::input)
    }

    /// Reads a console unless somebody here does.
    async fn read_console(&self, name: &MachineName) -> Result<console::Input, Trouble> {
        let _one = self.attaching.lock(name).await;
        if let Some(input) = self.input(name) {
            return Ok(input);
        }
        let dir = self.console_dir(name);
        files::private_dir(&dir)?;
        let attached = console::record(name, &dir).await?;
        let input = attached.input();
        self.consoles
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(name.clone(), attached);
        Ok(input)
    }

    async fn leave_console(&self, name: &MachineName) {
        let _one = self.attaching.lock(name).await;
        let left = self
            .consoles
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(name);
        if let Some(attached) = left {
            attached.close().await;
        }
    }

    /// Reads again from a console that may be ours to read.
    async fn see_console(&self, name: &MachineName, from: u64) -> Result<Console, Trouble> {
        let Some(record) = self.records.read(name)? else {
            return Err(Trouble::lasting("it does not exist"));
        };
        // Who follows a console asks often; the host is asked only when nobody here reads it.
        if !record.released
            && self.input(name).is_none()
            && self
                .host
                .zone(name)
                .await?
                .is_some_and(|zone| zone.state == State::Running)
        {
            self.read_console(name).await?;
        }
        Ok(crate::machine::console::read(&self.console_dir(name), from)?)
    }

    /// A machine's own record, when it is kept.
    fn kept(&self, name: &MachineName) -> Result<Record, Trouble> {
        let record = self.records.read(name)?.filter(|record| record.kept);
        record.ok_or_else(|| Trouble::lasting("it is not kept"))
    }

    async fn do_keep(&self, name: &MachineName) -> Result<(), Trouble> {
        let Some(mut record) = self.records.read(name)?.filter(|record| record.started) else {
            return Err(Trouble::lasting(
                "it was never started, or the host was rebooted since; nothing of it runs",
            ));
        };
        if self.host.whose_zone(name).await? != Whose::Ours {
            return Err(Trouble::lasting("its zone does not carry our marks"));
        }
        if !record.kept {
            // Said before it is done, so that nobody here connects to the console again.
            (record.kept, record.released) = (true, true);
            self.records.write(name, &record)?;
            self.leave_console(name).await;
        }
        let network = self.network(&record)?;
        let network = network.ok_or_else(|| Trouble::lasting("its slot has no network"))?;
        let (disk, zonepath) = (self.below("machines", name)?, self.below("zones", name)?);
        self.removal(name, &disk, &zonepath, Some(&network))
            .cut_off(&network)
            .await
    }

    async fn do_write(&self, name: &MachineName, bytes: &[u8]) -> Result<(), Trouble> {
        crate::machine::check_input(bytes)?;
        let mut record = self.kept(name)?;
        if record.released {
            if !bytes.is_empty() {
                return Err(Trouble::lasting("its console was released; take it again first"));
            }
            record.released = false;
            self.records.write(name, &record)?;
            if let Err(trouble) = self.read_console(name).await {
                record.released = true;
                self.records.write(name, &record)?;
                return Err(trouble);
            }
            return Ok(());
        }
        let input = self.read_console(name).await?;
        Ok(console::type_into(&input, bytes).await?)
    }

    async fn do_release(&self, name: &MachineName) -> Result<(), Trouble> {
        let mut record = self.kept(name)?;
        record.released = true;
        self.records.write(name, &record)?;
        self.leave_console(name).await;
        Ok(())
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

    async fn do_destroy(&self, name: &MachineName) -> Result<(), Trouble> {
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
        self.watch.forget().await;
        let half_written = self.options.run.join(format!("{name}.zonecfg"));
        for path in [self.console_dir(name), half_written] {
            match std::fs::symlink_metadata(&path) {
                Ok(meta) if meta.is_dir() => files::remove_tree(&path)?,
                Ok(_) => std::fs::remove_file(&path)?,
                Err(_) => {}
            }
        }
        Ok(self.records.remove(name)?)
    }

    async fn see(&self, name: &MachineName, zone: Option<&State>) -> Result<Observed, Trouble> {
        let record = self.records.read(name)?;
        let started = record.as_ref().is_some_and(|record| record.started);
        Ok(match zone {
            Some(State::Running | State::Ready) => Observed::Running,
            Some(State::ShuttingDown | State::Down) => Observed::Stopped("its zone is being torn down".into()),
            // A host that was rebooted has forgotten the record, and the guest with it.
            Some(State::Installed) if started => Observed::Stopped(self.last_words(name)),
            Some(_) => Observed::Prepared,
            None if record.is_some() => Observed::Prepared,
            None => {
                let disk = self.host.whose_dataset(&self.below("machines", name)?, name).await?;
                let zonepath = self.host.whose_dataset(&self.below("zones", name)?, name).await?;
                if disk == Whose::Ours || zonepath == Whose::Ours {
                    Observed::Prepared
                } else {
                    Observed::Absent
                }
            }
        })
    }

    /// How bhyve ended: what zoneadmd wrote down, and bhyve's own last line.
    fn last_words(&self, name: &MachineName) -> String {
        let path = PathBuf::from(self.options.zone.path.to_string()).join(name.as_str());
        let status = inside::tail(&path, &[], "lastexited", 100);
        let code = status.and_then(|text| text.split_whitespace().nth(1)?.parse::<i64>().ok());
        let how = match code {
            Some(256) => "the guest powered itself off".to_owned(),
            Some(-1) => "its zone was halted".to_owned(),
            Some(signal @ 1..=127) => format!("its bhyve was ended by signal {signal}"),
            Some(status) => format!("its bhyve ended with exit code {}", status >> 8),
            None => "its zone halted".to_owned(),
        };
        match inside::tail(&path, &["root", "tmp"], "init.log", 400) {
            Some(said) => format!("{how}; its last words: {said}"),
            None => how,
        }
    }

    async fn every(&self) -> Result<Vec<Owned>, Trouble> {
        let zones = self.host.zones().await?;
        let mut names: BTreeSet<MachineName> = self.records.names()?.into_iter().collect();
        for zone in &zones {
            let Ok(name) = zone.name.parse::<MachineName>() else {
                continue;
            };
            match self.host.whose_zone(&name).await {
                Ok(Whose::Ours) => {
                    if zone.state == State::Running {
                        self.power_off_unless_protected(&name).await?;
                    }
                    names.insert(name);
                }
                Ok(Whose::Nobodys | Whose::Anothers(_)) => {}
                // What cannot be read of one zone must not hide all others.
                Err(trouble) => tracing::warn!(reason = trouble.reason, "whose this zone is cannot be told now"),
            }
        }
        for kind in ["machines", "zones"] {
            let parent = self.options.zone.dataset.child(kind)?;
            let output = self.host.run(zfs::list(&parent)).await?;
            let below = zfs::marks(&parent, &self.options.node, &output)?;
            names.extend(below.ours.iter().filter_map(|name| name.parse().ok()));
        }
        self.remove_stray_links().await?;
        let mut machines = Vec::new();
        for name in names {
            let state = zones
                .iter()
                .find(|zone| zone.name == name.as_str())
                .map(|zone| &zone.state);
            let observed = self.see(&name, state).await?;
            machines.push(Owned { name, observed });
        }
        Ok(machines)
    }
}

fn of_this_node(trouble: Trouble) -> MachineError {
    MachineError {
        operation: Operation::Observe,
        machine: "of this node".to_owned(),
        reason: trouble.reason,
        retryable: trouble.retryable,
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
            .map_err(Trouble::named(Operation::Prepare, &spec.name))
    }

    async fn endpoints(&self, name: &MachineName) -> Result<Option<Endpoints>, MachineError> {
        let record = self
            .records
            .read(name)
            .map_err(Trouble::from)
            .map_err(Trouble::named(Operation::Observe, name))?;
        Ok(record.map(|record| record.endpoints))
    }

    async fn start(&self, name: &MachineName) -> Result<(), MachineError> {
        let _lock = self.locks.lock(name).await;
        self.do_start(name)
            .await
            .map_err(Trouble::named(Operation::Start, name))
    }

    async fn console(&self, name: &MachineName, from: u64) -> Result<Console, MachineError> {
        self.see_console(name, from)
            .await
            .map_err(Trouble::named(Operation::Console, name))
    }

    async fn stop(&self, name: &MachineName, _grace: Duration) -> Result<(), MachineError> {
        // A zone's halt would ask the guest and wait half an hour; what matters to a job is said over gRPC.
        let _lock = self.locks.lock(name).await;
        let stop = async {
            if self.host.whose_zone(name).await? != Whose::Ours {
                return Ok(());
            }
            let (disk, zonepath) = (self.below("machines", name)?, self.below("zones", name)?);
            let ended = self.removal(name, &disk, &zonepath, None).halt().await;
            self.watch.forget().await;
            ended
        };
        stop.await.map_err(Trouble::named(Operation::Stop, name))
    }

    async fn keep(&self, name: &MachineName) -> Result<(), MachineError> {
        let _lock = self.locks.lock(name).await;
        self.do_keep(name).await.map_err(Trouble::named(Operation::Keep, name))
    }

    async fn write_console(&self, name: &MachineName, bytes: &[u8]) -> Result<(), MachineError> {
        let _lock = self.locks.lock(name).await;
        self.do_write(name, bytes)
            .await
            .map_err(Trouble::named(Operation::Write, name))
    }

    async fn release_console(&self, name: &MachineName) -> Result<(), MachineError> {
        let _lock = self.locks.lock(name).await;
        self.do_release(name)
            .await
            .map_err(Trouble::named(Operation::Release, name))
    }

    async fn destroy(&self, name: &MachineName) -> Result<(), MachineError> {
        let _lock = self.locks.lock(name).await;
        self.do_destroy(name)
            .await
            .map_err(Trouble::named(Operation::Destroy, name))
    }

    async fn observe(&self, name: &MachineName) -> Result<Observed, MachineError> {
        let see = async {
            if self.boots(name).await? {
                return Ok(Observed::Running);
            }
            let state = self.host.zone(name).await?.map(|zone| zone.state);
            if state.is_some() && !matches!(self.host.whose_zone(name).await?, Whose::Ours) {
                return Ok(Observed::Absent);
            }
            self.see(name, state.as_ref()).await
        };
        see.await.map_err(Trouble::named(Operation::Observe, name))
    }

    async fn list(&self) -> Result<Vec<Owned>, MachineError> {
        self.every().await.map_err(of_this_node)
    }

    async fn troubles(&self) -> Result<Vec<String>, MachineError> {
        self.for_a_person().await.map_err(of_this_node)
    }

    async fn wait_stopped(&self, name: &MachineName) -> Result<Observed, MachineError> {
        self.until_stopped(name).await
    }
}
