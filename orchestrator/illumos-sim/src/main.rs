//! One binary under many names: the program is the file name it was called by.
#![allow(
    clippy::disallowed_methods,
    reason = "a test double outside the product: it waits and replaces itself as the real programs do"
)]

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use illumos_sim::{Ended, Sim, program, sim::Pass};
use nix::sys::signal::{Signal, raise};

/// How often a command that waits for the guest looks again.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

fn main() -> ExitCode {
    let mut argv = std::env::args_os().map(|arg| arg.to_string_lossy().into_owned());
    let called = argv.next().unwrap_or_default();
    let args: Vec<String> = argv.collect();
    let name = Path::new(&called)
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let ended = match (name.as_str(), args.as_slice()) {
        ("illumos-sim", [verb, dir]) if verb == "install" => install(Path::new(dir)).map(|()| 0),
        ("illumos-sim", [verb]) if verb == "reboot" => Sim::find().and_then(|sim| sim.host_reboot()).map(|()| 0),
        ("illumos-sim", [verb, dir]) if verb == "create" => Sim::create(Path::new(dir)).map(|_| 0),
        ("illumos-sim", _) => {
            eprintln!("usage: illumos-sim create DIR | install DIR | reboot");
            Ok(2)
        }
        ("pfexec", _) => program::pfexec::exec(&args),
        _ => run(&name, &args),
    };
    match ended {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("illumos-sim: {name}: {error}");
            ExitCode::from(125)
        }
    }
}

/// Symbolic links for all programs, in an existing or new folder.
fn install(dir: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(dir)?;
    let me: PathBuf = std::env::current_exe()?;
    for name in program::NAMES {
        let link = dir.join(name);
        match std::fs::remove_file(&link) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => std::os::unix::fs::symlink(&me, link)?,
        }
    }
    Ok(())
}

fn run(name: &str, args: &[String]) -> std::io::Result<u8> {
    let sim = Sim::find()?;
    let mut pass = Pass::First;
    loop {
        match sim.pass(name, args, pass)? {
            Ended::Exit(out) => {
                std::io::stdout().write_all(out.stdout.as_bytes())?;
                std::io::stderr().write_all(out.stderr.as_bytes())?;
                return Ok(u8::try_from(out.code).unwrap_or(255));
            }
            Ended::Killed => {
                raise(Signal::SIGKILL)?;
            }
            Ended::Hung => loop {
                nix::unistd::pause();
            },
            Ended::Waiting => {
                std::thread::sleep(LOOK_AGAIN);
                pass = Pass::Again;
            }
        }
    }
}
