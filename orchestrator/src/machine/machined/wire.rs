//! The port's values as messages and back. What comes from the other side is parsed again and
//! bounded, whoever sent it.

use std::{fmt, str::FromStr, time::Duration};

use helios_proto::machine as wire;
use tonic::Status;

use crate::{
    machine::{Console, Endpoints, INPUT_LIMIT, ListenAt, MachineSpec, Observed, OwnedMachine, Seed},
    model::names::MachineName,
    secret::Secret,
};

/// Most processors one machine may have.
const CPUS: u32 = 1024;
/// Most memory of one machine: 16 TiB.
const MEMORY_MIB: u64 = 16 << 20;
/// Largest disk of one machine: 1 PiB.
const DISK_GIB: u64 = 1 << 20;
/// Longest join token.
const TOKEN: usize = 256;
/// Longest text of any other kind.
const TEXT: usize = 4096;
/// Longest time that a machine may be given to stop.
const GRACE: Duration = Duration::from_secs(3600);

/// A value that the port does not know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} {problem}")]
pub(super) struct Refused {
    field: &'static str,
    problem: String,
}

impl Refused {
    fn new(field: &'static str, problem: impl fmt::Display) -> Self {
        Self {
            field,
            problem: problem.to_string(),
        }
    }
}

impl From<Refused> for Status {
    fn from(refused: Refused) -> Self {
        Self::invalid_argument(refused.to_string())
    }
}

fn parse<T: FromStr<Err: fmt::Display>>(field: &'static str, text: &str) -> Result<T, Refused> {
    text.parse().map_err(|error| Refused::new(field, error))
}

fn within<T: PartialOrd + fmt::Display>(field: &'static str, value: T, from: T, to: T) -> Result<T, Refused> {
    if value < from || value > to {
        return Err(Refused::new(field, format!("is {value}; possible: {from} to {to}")));
    }
    Ok(value)
}

fn text(field: &'static str, value: String, most: usize) -> Result<String, Refused> {
    if value.len() > most {
        return Err(Refused::new(field, format!("has more than {most} bytes")));
    }
    if value.chars().any(char::is_control) {
        return Err(Refused::new(field, "has a control character"));
    }
    Ok(value)
}

pub(super) fn name(text: &str) -> Result<MachineName, Refused> {
    parse("name", text)
}

pub(super) fn grace(ms: u64) -> Result<Duration, Refused> {
    Ok(Duration::from_millis(within(
        "grace",
        ms,
        0,
        u64::try_from(GRACE.as_millis()).unwrap_or(u64::MAX),
    )?))
}

/// What is typed on a console: any bytes, but not many.
pub(super) fn input(data: Vec<u8>) -> Result<Vec<u8>, Refused> {
    if data.len() > INPUT_LIMIT {
        return Err(Refused::new("data", format!("has more than {INPUT_LIMIT} bytes")));
    }
    Ok(data)
}

pub(super) fn spec_to_wire(spec: &MachineSpec) -> wire::PrepareRequest {
    wire::PrepareRequest {
        name: spec.name.to_string(),
        node: spec.node.to_string(),
        image: spec.image.to_string(),
        cpus: spec.cpus,
        memory_mib: spec.memory_mib,
        disk_gib: spec.disk_gib,
        seed: Some(wire::Seed {
            fingerprint: spec.seed.fingerprint.clone(),
            token: spec.seed.token.expose().to_owned(),
            time_ms: spec.seed.time_ms,
        }),
    }
}

pub(super) fn spec(request: wire::PrepareRequest) -> Result<MachineSpec, Refused> {
    let seed = request.seed.ok_or_else(|| Refused::new("seed", "is missing"))?;
    let hex = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
    if seed.fingerprint.len() != 64 || !seed.fingerprint.bytes().all(hex) {
        return Err(Refused::new(
            "seed.fingerprint",
            "is not the hex SHA-256 of a certificate",
        ));
    }
    // The value itself is never shown.
    if seed.token.is_empty() || seed.token.len() > TOKEN || !seed.token.bytes().all(|c| c.is_ascii_graphic()) {
        return Err(Refused::new("seed.token", "is not 1 to 256 printable characters"));
    }
    Ok(MachineSpec {
        name: name(&request.name)?,
        node: parse("node", &request.node)?,
        image: parse("image", &request.image)?,
        cpus: within("cpus", request.cpus, 1, CPUS)?,
        memory_mib: within("memory_mib", request.memory_mib, 16, MEMORY_MIB)?,
        disk_gib: request
            .disk_gib
            .map(|size| within("disk_gib", size, 1, DISK_GIB))
            .transpose()?,
        seed: Seed {
            fingerprint: seed.fingerprint,
            token: Secret::new(seed.token),
            time_ms: within("seed.time_ms", seed.time_ms, 0, i64::MAX)?,
        },
    })
}

fn listen_to_wire(at: &ListenAt) -> wire::ListenAt {
    wire::ListenAt {
        at: Some(match at {
            ListenAt::Unix(path) => wire::listen_at::At::Unix(path.display().to_string()),
            ListenAt::Tcp(address) => wire::listen_at::At::Tcp(address.to_string()),
            ListenAt::Slot { address, guest } => wire::listen_at::At::Slot(wire::SlotAddress {
                address: address.to_string(),
                guest: guest.to_string(),
            }),
        }),
    }
}

fn listen(field: &'static str, at: Option<wire::ListenAt>) -> Result<ListenAt, Refused> {
    match at.and_then(|at| at.at) {
        Some(wire::listen_at::At::Unix(path)) => Ok(ListenAt::Unix(text(field, path, TEXT)?.into())),
        Some(wire::listen_at::At::Tcp(address)) => Ok(ListenAt::Tcp(parse(field, &address)?)),
        Some(wire::listen_at::At::Slot(slot)) => Ok(ListenAt::Slot {
            address: parse(field, &slot.address)?,
            guest: parse(field, &slot.guest)?,
        }),
        None => Err(Refused::new(field, "is missing")),
    }
}

pub(super) fn endpoints_to_wire(endpoints: &Endpoints) -> wire::Endpoints {
    wire::Endpoints {
        agent: Some(listen_to_wire(&endpoints.agent)),
        git: Some(listen_to_wire(&endpoints.git)),
        git_authority: endpoints.git_authority.clone(),
        home: endpoints.home.clone(),
    }
}

pub(super) fn endpoints(message: wire::Endpoints) -> Result<Endpoints, Refused> {
    Ok(Endpoints {
        agent: listen("agent", message.agent)?,
        git: listen("git", message.git)?,
        git_authority: text("git_authority", message.git_authority, TEXT)?,
        home: text("home", message.home, TEXT)?,
    })
}

pub(super) fn console(reply: wire::ConsoleReply) -> Console {
    Console {
        bytes: reply.data,
        next: reply.next,
    }
}

pub(super) fn observed_to_wire(observed: Observed) -> wire::Observed {
    use wire::observed::State;
    let (state, words) = match observed {
        Observed::Absent => (State::Absent, String::new()),
        Observed::Prepared => (State::Prepared, String::new()),
        Observed::Running => (State::Running, String::new()),
        Observed::Stopped(words) => (State::Stopped, words),
    };
    wire::Observed {
        state: state.into(),
        words,
    }
}

pub(super) fn observed(message: wire::Observed) -> Result<Observed, Refused> {
    use wire::observed::State;
    match message.state() {
        State::Absent => Ok(Observed::Absent),
        State::Prepared => Ok(Observed::Prepared),
        State::Running => Ok(Observed::Running),
        State::Stopped => Ok(Observed::Stopped(message.words)),
        State::Unspecified => Err(Refused::new("state", "is unknown")),
    }
}

pub(super) fn owned_to_wire(owned: OwnedMachine) -> wire::Owned {
    wire::Owned {
        name: owned.name.to_string(),
        observed: Some(observed_to_wire(owned.observed)),
    }
}

pub(super) fn owned(message: wire::Owned) -> Result<OwnedMachine, Refused> {
    Ok(OwnedMachine {
        name: name(&message.name)?,
        observed: observed(message.observed.unwrap_or_default())?,
    })
}
