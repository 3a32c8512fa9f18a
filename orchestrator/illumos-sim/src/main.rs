//! illumos's host commands over a model: see the library.

fn main() -> std::process::ExitCode {
    illumos_sim::cli::main()
}
