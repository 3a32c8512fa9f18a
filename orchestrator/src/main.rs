//! The command line.

use std::process::ExitCode;

use clap::Parser;
use helios_ci::machine::qemu::relay;

#[derive(Parser)]
enum Command {
    /// Carries bytes between a guest and the daemon; started by QEMU.
    #[command(hide = true)]
    Relay(relay::Args),
}

fn main() -> ExitCode {
    match Command::parse() {
        Command::Relay(args) => relay::main(&args),
    }
}
