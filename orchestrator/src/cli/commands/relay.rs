//! `helios-ci relay`

use std::process::ExitCode;

use crate::machine::qemu::relay;
pub(in crate::cli) use crate::machine::qemu::relay::Args as RelayArgs;

pub(in crate::cli) fn run(args: &RelayArgs) -> ExitCode {
    relay::main(args)
}
