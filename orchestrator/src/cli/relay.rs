//! `helios-ci relay`

use std::process::ExitCode;

use crate::machine::qemu::relay;
pub(super) use crate::machine::qemu::relay::Args as RelayArgs;

pub(super) fn run(args: &RelayArgs) -> ExitCode {
    relay::main(args)
}
