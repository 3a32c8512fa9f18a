//! One binary under many names: the program is the file name it was called by.

use std::{
    io::Write,
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

use nix::sys::signal::{Signal, raise};

use crate::{Ended, Sim, console, program, sim::Pass};

/// Interval between two polls of a command that waits for the guest.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// How long a daemon may take to make its socket before its start counts as failed.
const DAEMON_STARTS: Duration = Duration::from_secs(20);

/// Runs as the program that this process was called as. Any binary may become the simulator with this as its
/// `main`.
#[must_use]
pub fn main() -> ExitCode {
    let mut argv = std::env::args_os().map(|arg| arg.to_string_lossy().into_owned());
    let called = argv.next().unwrap_or_default();
    let args: Vec<String> = argv.collect();
    let name = Path::new(&called)
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let ended = match (name.as_str(), args.as_slice()) {
        ("illumos-sim", [verb, dir]) if verb == "install" => std::env::current_exe()
            .and_then(|me| install(Path::new(dir), &me))
            .map(|()| 0),
        ("illumos-sim", [verb]) if verb == "reboot" => Sim::find().and_then(|sim| sim.host_reboot()).map(|()| 0),
        ("illumos-sim", [verb, dir]) if verb == "create" => Sim::create(Path::new(dir)).map(|_| 0),
        ("illumos-sim", _) => {
            eprintln!("usage: illumos-sim create DIR | install DIR | reboot");
            Ok(2)
        }
        ("illumos-sim-console", [zone]) => Sim::find().and_then(|sim| console::serve(&sim, zone)).map(|()| 0),
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

/// Symbolic links for all programs to one binary, in an existing or new folder.
///
/// # Errors
/// The folder cannot be written.
pub fn install(dir: &Path, binary: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(dir)?;
    for name in program::NAMES {
        let link = dir.join(name);
        crate::files::remove(&link)?;
        std::os::unix::fs::symlink(binary, link)?;
    }
    Ok(())
}

fn run(name: &str, args: &[String]) -> std::io::Result<u8> {
    let sim = Sim::find()?;
    let mut pass = Pass::First;
    loop {
        let ended = sim.pass(name, args, pass)?;
        // zoneadmd runs for every zone that is up, whatever became of the command that brought it up.
        if let Some(zone) = console::wanted(name, args) {
            let asked = name == "zoneadmd" && matches!(&ended, Ended::Exit(out) if out.code == 0);
            if asked || sim.state()?.zones.contains_key(zone) {
                daemon(&sim, zone)?;
            }
        }
        match ended {
            Ended::Exit(out) => {
                if out.code == 0
                    && let Some(zone) = console::attached(name, args)
                {
                    daemon(&sim, zone)?;
                    if let Err(text) = console::attach(&sim, zone) {
                        eprintln!("zlogin: {text}");
                        return Ok(1);
                    }
                    return Ok(0);
                }
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

/// Starts zoneadmd's part that outlives the command, in a process group of its own, and waits for its socket.
fn daemon(sim: &Sim, zone: &str) -> std::io::Result<()> {
    if console::is_served(sim, zone)? {
        return Ok(());
    }
    Command::new(std::env::current_exe()?)
        .arg0("illumos-sim-console")
        .arg(zone)
        .env("ILLUMOS_SIM", sim.dir())
        .current_dir("/")
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let end = Instant::now() + DAEMON_STARTS;
    while !console::is_served(sim, zone)? {
        if Instant::now() > end {
            return Err(std::io::Error::other(format!("no console for zone {zone}")));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}
