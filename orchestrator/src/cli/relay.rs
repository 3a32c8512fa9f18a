//! `helios-ci relay`

use std::process::ExitCode;

pub(super) use crate::machine::qemu::relay::Args as RelayArgs;
use crate::machine::qemu::relay;

pub(super) fn run(args: &RelayArgs) -> ExitCode {
    relay::main(args)
}
