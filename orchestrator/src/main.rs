//! helios-ci: parse the command line, start one thing.

use std::process::ExitCode;

fn main() -> ExitCode {
    helios_ci::cli::main()
}
