//! `helios-ci relay`

use std::path::PathBuf;

use clap::Args;

use super::{Exit, Outcome};
use crate::machine::qemu::relay;

#[derive(Debug, Args)]
pub(super) struct RelayArgs {
    /// The socket.
    socket: PathBuf,
}

pub(super) fn run(args: &RelayArgs) -> Outcome {
    relay::run(&args.socket).map_err(super::report)?;
    Ok(Exit::Success)
}
