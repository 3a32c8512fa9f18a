//! One life of a machine that nobody asked for, step by step, on this host: each step does what a job depends on and
//! that no test off illumos can prove (docs/illumos-evidence.md), and says whether the host did as was believed.
//!
//! It is done in the name of a node of its own, so that machined, whose node is another, leaves all of it alone; on the
//! last slot, which is the last that a machine would get; with the product's own code, so that what is seen here is what
//! a job meets. What an earlier rehearsal left when it was killed goes first.

use std::{
    fs, io,
    net::{SocketAddr, TcpListener},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::fs::{FlockOperation, flock};

use super::{
    configuration,
    steps::{Act, STEPS, Step},
};
use crate::{
    config::{Image, Zone},
    files,
    machine::{
        MachineSpec, seed,
        step_error::StepError,
        zone::{
            command::{
                dladm, ipf, zfs,
                zoneadm::{self, State},
            },
            golden::Golden,
            host::{Host, Ownership, timeout_scale::TimeoutScale, vmm},
            life::{
                console,
                create::Create,
                destroy::{Destroy, links},
                plan::{MachinePlan, RUN, Wanted, example},
                record::ZoneRecords,
                zone_files,
            },
        },
    },
    model::{
        ids::AttemptId,
        illumos::{
            network::{Slot, SlotNetwork},
            release::Release,
        },
        names::{Label, MachineName, NodeName},
        size::Size,
    },
};

/// The node that owns all that a rehearsal makes.
const NODE: &str = "helios-ci.rehearsal";
/// The label of its golden disk.
const LABEL: &str = "rehearsal";
/// The disk's size: one block more than is read at a time, and no multiple of it.
const DISK: usize = (1 << 20) + 512;
/// A guest without a system stays in its firmware; a bhyve that cannot run has ended by then.
const STAYS: Duration = Duration::from_secs(5);
/// Interval between two polls.
const AGAIN: Duration = Duration::from_millis(200);

/// What was seen of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StepOutcome {
    /// As it is believed, with what is worth knowing beside it.
    AsBelieved(String),
    /// The host did something else, which the text names.
    Different(String),
    /// What it needs did not come about.
    NotTried(&'static str),
}

/// Why there is no rehearsal.
#[derive(Debug, thiserror::Error)]
pub enum RehearsalError {
    /// Another one would be swept away.
    #[error("another rehearsal runs on this host: wait until it has ended")]
    Busy,
    /// Everything that it swept away would be this node's own.
    #[error("the node is called {NODE}, as which rehearsals are done: give it another name")]
    Name,
    /// Nothing can be begun.
    #[error("cannot begin: {0}")]
    Begin(String),
}

/// Rehearses a machine's life. `tell` gets each step as soon as it is done. Needs root, and a host that was set up.
///
/// # Errors
/// When another rehearsal runs, the node has its name, or what an earlier one left cannot be removed.
pub async fn rehearse(
    node: &NodeName,
    zone: &Zone,
    release: Release,
    timeout_scale: TimeoutScale,
    mut tell: impl FnMut(&Step, StepOutcome),
) -> Result<(), RehearsalError> {
    if node.as_str() == NODE {
        return Err(RehearsalError::Name);
    }
    let begin = |error: &dyn std::fmt::Display| RehearsalError::Begin(error.to_string());
    let _lock = alone().map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => RehearsalError::Busy,
        _ => begin(&error),
    })?;
    let trial = Trial::new(zone, release, timeout_scale).map_err(|error| begin(&error.reason))?;
    trial.sweep().await.map_err(|error| begin(&error.reason))?;
    let mut missing = None;
    for step in STEPS {
        let seen = match missing {
            Some(needed) if step.act != Act::Removal => StepOutcome::NotTried(needed),
            _ => match trial.perform(step.act).await {
                Ok(detail) => StepOutcome::AsBelieved(detail),
                Err(error) => {
                    missing = missing.or(step.needed.then_some(step.id));
                    StepOutcome::Different(error.reason)
                }
            },
        };
        tell(step, seen);
    }
    Ok(())
}

/// Only one at a time: the next begins with removing what it finds.
fn alone() -> io::Result<fs::File> {
    let run = Path::new(RUN);
    files::public_dir(run)?;
    let mut options = fs::OpenOptions::new();
    let path = run.join("rehearsal.lock");
    let file = options.create(true).truncate(false).write(true).open(path)?;
    flock(&file, FlockOperation::NonBlockingLockExclusive)?;
    Ok(file)
}

/// What the golden disk is imported from.
fn disk_file() -> PathBuf {
    Path::new(RUN).join("rehearsal.raw")
}

struct Trial<'a> {
    zone: &'a Zone,
    release: Release,
    host: Host,
    golden: Golden,
    label: Label,
    spec: MachineSpec,
    plan: MachinePlan,
}

impl<'a> Trial<'a> {
    fn new(zone: &'a Zone, release: Release, timeout_scale: TimeoutScale) -> Result<Self, StepError> {
        let node: NodeName = NODE.parse().map_err(StepError::permanent)?;
        let label: Label = LABEL.parse().map_err(StepError::permanent)?;
        let size = Size {
            cpus: 1,
            memory_mib: 512,
            disk_gib: Some(1),
        };
        let spec = example(&node, &label, MachineName::of(AttemptId::new()), size);
        let plan = MachinePlan::new(Wanted {
            spec: &spec,
            image: &Image::default(),
            version: 1,
            slot: zone.network.last_slot(),
            zone,
        })?;
        Ok(Self {
            zone,
            release,
            host: Host {
                node: node.to_string(),
                timeout_scale,
            },
            golden: Golden {
                node,
                root: zone.dataset.clone(),
            },
            label,
            spec,
            plan,
        })
    }

    async fn perform(&self, act: Act) -> Result<String, StepError> {
        match act {
            Act::Configuration => self.configuration().await,
            Act::Image => self.image().await,
            Act::VolumeEnd => self.volume_end(),
            Act::Disk => self.disk().await,
            Act::Zone => self.make_zone().await,
            Act::Network => self.network().await,
            Act::Protection => self.protection().await,
            Act::Filter => self.filter().await,
            Act::Listen => self.listen(),
            Act::Console => self.console().await,
            Act::Boot => self.boot().await,
            Act::RunningLink => self.running_link().await,
            Act::PowerOff => self.power_off().await,
            Act::HaltClears => self.halt_clears().await,
            Act::Removal => self.removal().await,
        }
    }

    async fn configuration(&self) -> Result<String, StepError> {
        let (node, image) = (&self.golden.node, Image::default());
        let found = configuration::rehearse(node, self.zone, &self.label, &image, 1, self.release).await;
        let found = found.map_err(|error| StepError::with_cause(&error))?;
        match (found.missing.as_slice(), found.besides.as_slice()) {
            ([], []) => Ok(format!("as the brand of {} makes it", self.release)),
            (missing, besides) => Err(StepError::permanent(format!(
                "the brand leaves out {missing:?} and adds {besides:?}"
            ))),
        }
    }

    async fn image(&self) -> Result<String, StepError> {
        let mut content = vec![0; DISK];
        content[..8].copy_from_slice(b"helios-c");
        content[DISK - 1] = 1;
        let digest = crate::digest::sha256_hex(&content);
        let file = disk_file();
        files::write_private(&file, &content)?;
        let (golden, label, from) = (self.golden.clone(), self.label.clone(), file.clone());
        let imported = tokio::task::spawn_blocking(move || {
            golden.import(&from, &label, &digest)?;
            golden.verify(&label)
        });
        let imported = imported.await.map_err(StepError::retryable)?;
        fs::remove_file(&file)?;
        let (version, _) = imported.map_err(|error| StepError::with_cause(&error))?;
        Ok(version.volume.to_string())
    }

    fn volume_end(&self) -> Result<String, StepError> {
        let golden = self
            .golden
            .versions(&self.label)
            .map_err(|error| StepError::with_cause(&error))?;
        let newest = golden
            .last()
            .ok_or_else(|| StepError::permanent("its volume is gone"))?;
        let volume = fs::File::open(newest.volume.device()?.to_string())?;
        let size = crate::model::illumos::names::VolumeSize::at_least(DISK as u64).bytes();
        let mut sector = [0; 512];
        volume.read_exact_at(&mut sector, size - 512)?;
        match volume.read_at(&mut sector, size) {
            Err(error) if error.raw_os_error() == Some(nix::libc::EIO) => Ok("EIO".to_owned()),
            Err(error) => Err(StepError::permanent(format!("it is {error}"))),
            Ok(count) => Err(StepError::permanent(format!("it gives {count} bytes"))),
        }
    }

    async fn disk(&self) -> Result<String, StepError> {
        self.host
            .make_disk(&self.spec, &self.plan.origin, &self.plan.disk)
            .await?;
        Ok(self.plan.disk.to_string())
    }

    fn create(&self) -> Result<Create<'_>, StepError> {
        // A seed without an agent: no guest will read it.
        let texts: Vec<(&str, &[u8])> = self
            .plan
            .seed
            .iter()
            .map(|(name, text)| (*name, text.as_bytes()))
            .collect();
        Ok(Create {
            host: &self.host,
            plan: &self.plan,
            spec: &self.spec,
            seed: seed::image(&texts)?,
            bandwidth: &self.zone.bandwidth,
        })
    }

    async fn make_zone(&self) -> Result<String, StepError> {
        self.create()?.zone().await?;
        Ok(self.plan.config.zonepath.to_string())
    }

    async fn network(&self) -> Result<String, StepError> {
        let links = dladm::links(&self.host.run(dladm::show_links()).await?)?;
        let slot = self.zone.network.last_slot().number();
        if ZoneRecords::new(Path::new(RUN).join("machines"))
            .slots()?
            .contains(&slot)
        {
            return Err(StepError::retryable(format!(
                "slot {slot}, the last, is a machine's now; try again later"
            )));
        }
        let names = self.plan.network.links().map(ToString::to_string);
        if let Some(taken) = names.iter().find(|name| links.contains(*name)) {
            return Err(StepError::permanent(format!(
                "link {taken} is there already; it is left alone"
            )));
        }
        files::write_private(&self.marker(), slot.to_string().as_bytes())?;
        self.create()?.network().await?;
        let network = &self.plan.network;
        Ok(format!(
            "{} over {}, {}",
            network.guest, network.stub, network.guest_mac
        ))
    }

    /// Is there while links of the slot are the rehearsal's: a stub has no owner tag of its own.
    fn marker(&self) -> PathBuf {
        Path::new(RUN).join("rehearsal.links")
    }

    async fn protection(&self) -> Result<String, StepError> {
        self.create()?.protected().await?;
        Ok(format!("with at most {}", self.zone.bandwidth))
    }

    async fn filter(&self) -> Result<String, StepError> {
        let output = self.host.run(ipf::list()).await?;
        match ipf::wrong(self.zone.network, self.zone.port, &output)? {
            None => Ok(String::new()),
            Some(wrong) => Err(StepError::permanent(wrong)),
        }
    }

    fn listen(&self) -> Result<String, StepError> {
        let address = SocketAddr::from((self.plan.network.host_address, self.zone.port));
        let listener =
            TcpListener::bind(address).map_err(|error| StepError::permanent(format!("{address}: {error}")))?;
        Ok(listener.local_addr()?.to_string())
    }

    /// Connected before the boot, as a machine's console is, and closed again: nobody reads this guest.
    async fn console(&self) -> Result<String, StepError> {
        zoneadm::done(&self.host.run(zoneadm::daemon(&self.spec.name)).await?)?;
        let dir = self.console_dir();
        files::private_dir(&dir)?;
        console::record(&self.spec.name, &dir).await?.close().await;
        files::remove_tree(&dir)?;
        Ok(String::new())
    }

    fn console_dir(&self) -> PathBuf {
        Path::new(RUN).join("rehearsal-console")
    }

    async fn boot(&self) -> Result<String, StepError> {
        let name = &self.spec.name;
        zoneadm::done(&self.host.run(zoneadm::boot(name)).await?)?;
        let until = tokio::time::Instant::now() + self.host.timeout_scale.scaled(STAYS);
        loop {
            let state = self.host.zone(name).await?.map(|zone| zone.state);
            if state != Some(State::Running) {
                let said = zone_files::tail(&self.zonepath(), &["root", "tmp"], "init.log", 400).unwrap_or_default();
                return Err(StepError::permanent(format!(
                    "its zone is {state:?}; bhyve's last words: {said}"
                )));
            }
            if tokio::time::Instant::now() >= until {
                break;
            }
            tokio::time::sleep(AGAIN).await;
        }
        match vmm(name).exists() {
            true => Ok(vmm(name).display().to_string()),
            false => Err(StepError::permanent(format!("it runs without {}", vmm(name).display()))),
        }
    }

    async fn running_link(&self) -> Result<String, StepError> {
        match self
            .host
            .is_protected(&self.plan.network, Some(&self.zone.bandwidth))
            .await?
        {
            true => Ok(String::new()),
            false => Err(StepError::permanent(format!(
                "{} is not protected",
                self.plan.network.guest
            ))),
        }
    }

    fn zonepath(&self) -> PathBuf {
        PathBuf::from(self.plan.config.zonepath.to_string())
    }

    fn destroy(&self) -> Destroy<'_> {
        Destroy {
            host: &self.host,
            name: &self.spec.name,
            disk: &self.plan.disk,
            zonepath: &self.plan.zonepath,
            path: self.plan.config.zonepath.to_string(),
            network: self.marker().exists().then_some(&self.plan.network),
        }
    }

    async fn power_off(&self) -> Result<String, StepError> {
        let begun = Instant::now();
        match self.host.zone_ownership(&self.spec.name).await? {
            Ownership::Ours(zone) => self.destroy().halt(&zone).await?,
            _ => {
                return Err(StepError::permanent(
                    "its zone does not carry the owner tags that it was given",
                ));
            }
        }
        let took = begun.elapsed().as_secs_f64();
        let written = zone_files::tail(&self.zonepath(), &[], "lastexited", 100).unwrap_or_default();
        match written.split_whitespace().nth(1) {
            Some("256") => Ok(format!("in {took:.1} s")),
            _ => Err(StepError::permanent(format!(
                "it took {took:.1} s, and lastexited says `{written}`"
            ))),
        }
    }

    async fn halt_clears(&self) -> Result<String, StepError> {
        match self.host.is_protected(&self.plan.network, None).await? {
            false => Ok(String::new()),
            true => Err(StepError::permanent("it is still there, which does no harm")),
        }
    }

    /// All of it, of steps that went wrong, too; what cannot be removed keeps nothing else.
    async fn removal(&self) -> Result<String, StepError> {
        let begun = Instant::now();
        let machine = self.destroy().run().await;
        let links = machine.and_then(|()| Ok(self.forget_links()?));
        let image = self.remove_image().await;
        let files = self.remove_files();
        links.and(image).and(files.map_err(StepError::from))?;
        Ok(format!("in {:.1} s", begun.elapsed().as_secs_f64()))
    }

    /// Files that the steps write beside those of machines.
    fn remove_files(&self) -> io::Result<()> {
        if self.console_dir().exists() {
            files::remove_tree(&self.console_dir())?;
        }
        files::remove_file(&disk_file())
    }

    fn forget_links(&self) -> io::Result<()> {
        files::remove_with_unfinished(&self.marker())
    }

    async fn remove_image(&self) -> Result<(), StepError> {
        let (golden, label) = (self.golden.clone(), self.label.clone());
        let removed = tokio::task::spawn_blocking(move || golden.remove_image(&label));
        removed
            .await
            .map_err(StepError::retryable)?
            .map_err(|error| StepError::with_cause(&error))
    }

    /// What a rehearsal that was killed left: everything that carries the owner tags of its node.
    async fn sweep(&self) -> Result<(), StepError> {
        for kind in ["zones", "machines"] {
            let parent = self.zone.dataset.child(kind)?;
            let children =
                zfs::children_by_owner(&parent, &self.golden.node, &self.host.run(zfs::list(&parent)).await?)?;
            for name in children.ours.iter().chain(&children.quarantined) {
                if let Ok(name) = name.parse::<MachineName>() {
                    self.remove_earlier(&name).await?;
                }
            }
        }
        // A trial of a configuration has no dataset.
        for zone in self.host.zones().await? {
            if let Ok(name) = zone.name.parse::<MachineName>()
                && matches!(self.host.zone_ownership(&name).await, Ok(Ownership::Ours(_)))
            {
                self.remove_earlier(&name).await?;
            }
        }
        self.remove_earlier_links().await?;
        self.remove_files()?;
        self.remove_image().await
    }

    /// Those of the slot that the marker names: the last one may have been another then.
    async fn remove_earlier_links(&self) -> Result<(), StepError> {
        let Some(text) = files::read_bounded(&self.marker(), 100)? else {
            return Ok(());
        };
        let slot = String::from_utf8_lossy(&text).trim().parse().ok().and_then(Slot::new);
        let network = slot.map(|slot| SlotNetwork::of(&self.golden.node, self.zone.network, slot));
        match network.transpose()?.flatten() {
            Some(network) => links(&self.host, &network).await?,
            None => tracing::warn!("links of an earlier rehearsal lie outside of zone.network, and stay"),
        }
        Ok(self.forget_links()?)
    }

    async fn remove_earlier(&self, name: &MachineName) -> Result<(), StepError> {
        let (disk, zonepath) = (
            self.zone.dataset.child("machines")?.child(name.as_str())?,
            self.zone.dataset.child("zones")?.child(name.as_str())?,
        );
        let earlier = Destroy {
            host: &self.host,
            name,
            disk: &disk,
            zonepath: &zonepath,
            path: format!("{}/{name}", self.zone.path),
            network: None,
        };
        earlier.run().await?;
        let half_written = Path::new(RUN).join(format!("{name}.zonecfg"));
        Ok(files::remove_with_unfinished(&half_written)?)
    }
}
