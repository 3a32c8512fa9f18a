//! The command line of helios-agent.

use std::{fs, os::unix::fs::DirBuilderExt, path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use helios_agent::{
    agent::{Agent, chain},
    facts, power,
    seed::Seed,
    session::{self, SessionError},
};
use helios_proto::VERSIONS;
use tokio::signal::unix::{SignalKind, signal};

#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

const USAGE: &str = "usage: helios-agent --seed DIR    serve the attempt of the seed disk mounted at DIR
       helios-agent --version   say which build this is";

/// The command line or the seed makes no sense, or this machine cannot run an agent.
const EXIT_SETUP: u8 = 2;
/// The node refused the agent.
const EXIT_REFUSED: u8 = 3;
/// The agent cannot keep its promises any more.
const EXIT_BROKEN: u8 = 4;
/// Somebody in the machine ended the agent, perhaps an init that shuts down: 128 + SIGTERM.
const EXIT_STOPPED: u8 = 143;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let arguments: Vec<_> = arguments
        .iter()
        .map(|argument| argument.to_str().unwrap_or("\u{fffd}"))
        .collect();
    match arguments[..] {
        ["--version"] => {
            println!(
                "helios-agent {} (protocol {} to {})",
                facts::VERSION,
                VERSIONS.0,
                VERSIONS.1
            );
            ExitCode::SUCCESS
        }
        ["--help"] => {
            println!("{USAGE}");
            ExitCode::SUCCESS
        }
        ["--seed", directory] => start(PathBuf::from(directory)).unwrap_or_else(|why| {
            eprintln!("helios-agent: {why}");
            ExitCode::from(EXIT_SETUP)
        }),
        _ => {
            eprintln!("{USAGE}");
            ExitCode::from(EXIT_SETUP)
        }
    }
}

fn start(directory: PathBuf) -> Result<ExitCode, String> {
    if std::process::id() == 1 {
        return Err(
            "it must not be process 1: the orphans of steps become children of process 1, and whoever \
                    waits for those steals the exit codes of the steps themselves; start it from an init"
                .to_owned(),
        );
    }
    let seed = Seed::read(&directory).map_err(|error| chain(&error))?;
    let state_dir = seed.state_dir.clone();
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&state_dir);
    made.map_err(|error| format!("cannot make {}: {error}", state_dir.display()))?;
    // One thread: an agent mostly waits. File work that blocks has two more at most.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(2)
        .thread_stack_size(512 * 1024)
        .build()
        .map_err(|error| format!("cannot start: {error}"))?;
    let power_off = seed.power_off;
    let code = runtime.block_on(run(seed))?;
    if power_off && code != EXIT_STOPPED {
        // It only comes back when it failed; then the node takes the power away.
        eprintln!("helios-agent: cannot turn the machine off: {}", power::off());
    }
    Ok(ExitCode::from(code))
}

async fn run(seed: Seed) -> Result<u8, String> {
    let cannot = |error| format!("cannot start: {error}");
    let agent: Arc<Agent> = Agent::new(seed).map_err(cannot)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(cannot)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(cannot)?;
    let code = tokio::select! {
        ended = session::serve(&agent) => match ended {
            Ok(never) => match never {},
            Err(error) => {
                eprintln!("helios-agent: {}", chain(&error));
                if matches!(error, SessionError::Refused(_)) { EXIT_REFUSED } else { EXIT_BROKEN }
            }
        },
        () = agent.finished() => 0,
        () = agent.measure() => EXIT_BROKEN,
        _ = terminate.recv() => EXIT_STOPPED,
        _ = interrupt.recv() => EXIT_STOPPED,
    };
    // Whatever the reason is, nothing that was started stays.
    agent.stop_all(Duration::ZERO).await;
    Ok(code)
}
