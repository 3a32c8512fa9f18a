//! The Machine port: what the rest of helios-ci may ask of a machine back end, in plain values only
//! (it also travels over machined's socket). Every call is idempotent; names are generated from the
//! attempt id and destroying needs proof that the thing is ours.

pub mod cgroup;
pub mod console;
pub mod ending;
pub mod listen;
pub mod local;
mod locks;
pub mod machined;
pub mod proc;
pub mod process;
pub mod qemu;
pub mod seed;
pub mod step_error;
pub mod zone;

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::{
    model::names::{Label, MachineName, NodeName},
    secret::Secret,
};

/// What a machine is to be.
#[derive(Debug, Clone)]
pub struct MachineSpec {
    /// `hci-<attempt>`.
    pub name: MachineName,
    /// The node whose owner tag it carries.
    pub node: NodeName,
    /// The image's label in the configuration.
    pub image: Label,
    /// Virtual processors.
    pub cpus: u32,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Least size of the disk in GiB; the image's own size when smaller or none.
    pub disk_gib: Option<u64>,
    /// What the seed disk tells the agent, apart from the addresses, which the adapter knows.
    pub seed: Seed,
}

/// What the agent must know to find its node and prove itself, once.
#[derive(Debug, Clone)]
pub struct Seed {
    /// Hex SHA-256 of the node's certificate (DER).
    pub fingerprint: String,
    /// Single-use join token; useless after the join.
    pub token: Secret,
    /// Milliseconds since 1970.
    pub time_ms: i64,
}

/// Where the daemon must listen for this machine before it is started, and how the guest names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoints {
    /// Where to listen for the agent.
    pub agent: ListenAt,
    /// Where to listen for git.
    pub git: ListenAt,
    /// The host and port part of a `git://` URL as the guest must write it: `10.0.2.100:9418`.
    pub git_authority: String,
    /// A directory in the guest that is the job's alone; the workspace lies below it.
    pub home: String,
}

/// An address to listen on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ListenAt {
    /// A UNIX socket in the machine's own 0700 directory: the socket itself names the machine.
    Unix(PathBuf),
    /// Loopback, for unisolated machines.
    Tcp(SocketAddr),
    /// An address of the host on one machine's own link. What comes from another address, or to another one,
    /// is not that machine.
    Slot {
        /// The host's address, to listen on.
        address: SocketAddr,
        /// The only address that may connect.
        guest: IpAddr,
    },
}

/// The state of a machine on the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Observed {
    /// Nothing of it exists.
    Absent,
    /// Parts of it exist, nothing runs.
    Prepared,
    /// It runs.
    Running,
    /// It ran and ended by itself; the words say how.
    Stopped(String),
}

/// A machine that carries this node's owner tag.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnedMachine {
    /// Its name.
    pub name: MachineName,
    /// Its state.
    pub observed: Observed,
}

/// Bytes of a machine's console.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Console {
    /// From the position that was asked for, at most 64 KiB.
    pub bytes: Vec<u8>,
    /// Where to go on.
    pub next: u64,
}

/// An operation of the port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// [`Machines::prepare`].
    Prepare,
    /// [`Machines::start`].
    Start,
    /// [`Machines::stop`].
    Stop,
    /// [`Machines::destroy`].
    Destroy,
    /// [`Machines::observe`], [`Machines::list`] or [`Machines::endpoints`].
    Observe,
    /// [`Machines::console`].
    Console,
    /// [`Machines::write_console`].
    Write,
    /// [`Machines::keep`].
    Keep,
    /// [`Machines::release_console`].
    Release,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Prepare => "prepare",
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Destroy => "destroy",
            Self::Observe => "inspect",
            Self::Console => "read the console of",
            Self::Write => "write to the console of",
            Self::Keep => "keep",
            Self::Release => "release the console of",
        })
    }
}

/// A machine operation that failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} machine {machine}: {reason}")]
pub struct MachineError {
    /// The operation that failed.
    pub operation: Operation,
    /// The machine's name, `*` for all.
    pub machine: String,
    /// Why, and what to do.
    pub reason: String,
    /// Another try on a fresh machine may help.
    pub retryable: bool,
}

/// The most that is typed on a console in one call, in bytes.
pub const INPUT_LIMIT: usize = 4096;

/// A back end. All implementations pass one contract suite.
#[async_trait]
pub trait Machines: Send + Sync + fmt::Debug {
    /// The back end's name in the configuration: `qemu`, `process`, `zone`.
    fn backend(&self) -> &'static str;

    /// Makes everything but starts nothing; repeating it after a crash completes or renews it.
    async fn prepare(&self, spec: &MachineSpec) -> Result<Endpoints, MachineError>;

    /// The addresses of a prepared machine, also after a restart of the daemon. `None` when absent.
    async fn endpoints(&self, name: &MachineName) -> Result<Option<Endpoints>, MachineError>;

    /// Starts a prepared machine; a running one is left alone.
    async fn start(&self, name: &MachineName) -> Result<(), MachineError>;

    /// Reads the console from a position (0 is the beginning). Past the cap the oldest bytes are
    /// gone and the answer begins later than asked.
    async fn console(&self, name: &MachineName, from: u64) -> Result<Console, MachineError>;

    /// Asks the machine to stop, and takes its power away after `grace`.
    async fn stop(&self, name: &MachineName, grace: Duration) -> Result<(), MachineError>;

    /// Cuts a machine off from its node for good and leaves the rest as it is, for a person to examine. What
    /// the guest's side reached is gone, whoever listens; its console is free.
    async fn keep(&self, name: &MachineName) -> Result<(), MachineError>;

    /// Types on the console of a kept machine. Nothing (no bytes) takes the console, which must come first where
    /// it can be had by one reader only. At most [`INPUT_LIMIT`] bytes; not to be repeated.
    async fn write_console(&self, name: &MachineName, bytes: &[u8]) -> Result<(), MachineError>;

    /// Lets go of the console of a kept machine, for whoever wants to reach it past us.
    async fn release_console(&self, name: &MachineName) -> Result<(), MachineError>;

    /// Removes every trace; an absent machine is a success.
    async fn destroy(&self, name: &MachineName) -> Result<(), MachineError>;

    /// What is there now.
    async fn observe(&self, name: &MachineName) -> Result<Observed, MachineError>;

    /// Every machine that carries this node's owner tag. One that runs but is not held to its network as it was when it
    /// was started loses its power first.
    async fn list(&self) -> Result<Vec<OwnedMachine>, MachineError>;

    /// What only a person can mend, one sentence each: things of machines' names that are another's, disks that could not be
    /// destroyed, zones that hang. Nothing here is touched again by itself.
    async fn findings(&self) -> Result<Vec<String>, MachineError> {
        Ok(Vec::new())
    }

    /// Resolves when the machine is no longer running (at once when it is not), so that a death is
    /// noticed without waiting for a time-out.
    async fn wait_stopped(&self, name: &MachineName) -> Result<Observed, MachineError>;
}
