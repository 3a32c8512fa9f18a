//! `helios.agent.v1`: what a helios-ci node and the agent inside a machine say to each other. The
//! protocol itself is documented in `proto/helios/agent/v1/agent.proto`.

/// Version 1 of the protocol.
#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub mod v1 {
    tonic::include_proto!("helios.agent.v1");
}

/// `helios.machine.v1`: what the daemon asks of `helios-ci machined`, documented in
/// `proto/helios/machine/v1/machine.proto`.
#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub mod machine {
    tonic::include_proto!("helios.machine.v1");
}

/// The protocol versions this build speaks, both ends included.
pub const VERSIONS: (u32, u32) = (1, 1);

/// The most bytes one [`v1::Output`] may carry to a node of this build, which says so in its [`v1::Welcome`].
pub const MAX_OUTPUT: usize = 128 * 1024;

/// The most bytes one [`v1::Output`] may carry to a node that says nothing, and before the first welcome.
pub const MAX_OUTPUT_UNSAID: usize = 64 * 1024;

/// The descriptor set of the protocol as this build knows it.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
