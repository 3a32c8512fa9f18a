//! `helios-ci machined`: the small room that holds the privileges.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use clap::Args;
use miette::miette;
use nix::unistd::User;
use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};
use tokio_util::sync::CancellationToken;

use super::{backend, parts, signals};
use crate::{
    cli::{Common, Exit, Outcome, report},
    config::Config,
    exec, files,
    machine::machined::{Callers, serve},
    telemetry::{self, LogFormat},
};

/// How long operations that have begun may take to end after SIGTERM; SMF's stop method has 150 s.
const STOP_WITHIN: Duration = Duration::from_secs(45);
/// How long the commands of a machined that died may still run: the longest deadline of one.
const LEFTOVERS: Duration = Duration::from_secs(90);

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  svcadm enable helios-ci/machined   on illumos, as a service
  sudo helios-ci machined            elsewhere, in the foreground")]
pub(in crate::cli) struct MachinedArgs {
    /// Log one JSON object per line.
    #[arg(long, env = "HELIOS_CI_LOG_JSON")]
    log_json: bool,
    /// Accept the back end `process`, which isolates nothing. For tests and benchmarks.
    #[arg(long, hide = true)]
    allow_unisolated: bool,
}

pub(in crate::cli) async fn run(common: &Common, args: MachinedArgs) -> Outcome {
    telemetry::log_to_stderr(LogFormat::of_option(args.log_json), common.verbose).map_err(report)?;
    let config = crate::cli::commands::config::load_and_warn(common)?;
    let (socket, mut callers) = door(common, &config)?;
    let directory = socket.parent().unwrap_or(Path::new("/"));
    files::public_dir(directory)
        .map_err(|e| miette!("cannot make {} for machined's socket: {e}", directory.display()))?;
    parts::private_files();
    let end = CancellationToken::new();
    let reload = signals::watch(&end)?;
    exec::children_hold(lock(&socket.with_extension("lock"), &end).await?);
    let mut machines = backend::local(&config, args.allow_unisolated).await?;
    loop {
        tracing::info!(
            node = %config.node, backend = machines.backend(), socket = %socket.display(), "machined is ready"
        );
        let stop = end.child_token();
        let served = async {
            let (machines, node) = (Arc::clone(&machines), config.node.clone());
            let served = serve(machines, node, &socket, callers, stop.clone(), STOP_WITHIN).await;
            stop.cancel();
            served
        };
        // Their consoles have no reader since the last machined, or the last configuration.
        let reading = tokio::spawn({
            let machines = Arc::clone(&machines);
            async move {
                if let Err(error) = machines.list().await {
                    tracing::warn!(%error, "the machines of before cannot be inspected yet");
                }
            }
        });
        let next = async {
            let next = loop {
                reload.notified().await;
                let loaded = async {
                    let next = crate::cli::commands::config::load_and_warn(common)?;
                    let (new_socket, callers) = door(common, &next)?;
                    if next.node != config.node || new_socket != socket {
                        return Err(miette!(
                            help = "restart machined",
                            "`node` and `machined.socket` cannot change while it runs"
                        ));
                    }
                    Ok((backend::local(&next, args.allow_unisolated).await?, callers))
                };
                match loaded.await {
                    Ok(next) => break next,
                    Err(error) => tracing::error!(
                        reason = format!("{error:?}"),
                        "the new configuration is refused; going on with the one before"
                    ),
                }
            };
            stop.cancel();
            next
        };
        let next = stop.run_until_cancelled(next);
        let (served, next) = tokio::join!(served, next);
        reading.abort();
        let finished = served.map_err(report)?;
        if !finished {
            exec::finish_commands();
        }
        match next {
            // Two back ends must not work on one machine.
            Some(_) if !finished => {
                return Err(miette!(
                    help = "the service manager starts it again, with the new configuration",
                    "some operations could not be finished before a new configuration"
                ));
            }
            Some(next) => (machines, callers) = next,
            None => {
                tracing::info!("stopped; machines stay as they are");
                return Ok(Exit::Success);
            }
        }
    }
}

/// Where machined listens, and to whom.
fn door(common: &Common, config: &Config) -> miette::Result<(PathBuf, Callers)> {
    let Some(machined) = &config.machined else {
        return Err(miette!(
            help = "add a `machined:` section, and the daemon will use it too",
            "{} says that the daemon keeps its machines itself",
            common.config.display()
        ));
    };
    let user = match &machined.user {
        None => None,
        Some(name) => Some(
            User::from_name(name)
                .map_err(|e| miette!("cannot look up the user {name}: {e}"))?
                .ok_or_else(|| {
                    miette!(
                        help = "make the user, or name another as `machined.user`",
                        "there is no user {name}"
                    )
                })?
                .uid,
        ),
    };
    Ok((machined.socket.clone(), Callers { user }))
}

/// Waits for the commands of an earlier machined, which hold this lock too.
async fn lock(path: &Path, stop: &CancellationToken) -> miette::Result<fs::File> {
    let cannot = |e: &dyn std::fmt::Display| miette!("cannot lock {}: {e}", path.display());
    let until = Instant::now() + LEFTOVERS;
    let mut said = false;
    loop {
        // Readable and empty: commands get it as their standard input.
        let file = fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(path)
            .map_err(|e| cannot(&e))?;
        // The lock lasts as long as any copy of the open file.
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(Errno::WOULDBLOCK) if Instant::now() < until && !stop.is_cancelled() => {
                if !said {
                    tracing::info!("waiting for another machined, or for the last commands of one, to end");
                    said = true;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Err(Errno::WOULDBLOCK) => {
                return Err(miette!(
                    help = "stop the other one; `fuser` on the file names who holds it",
                    "{} is held by another machined or by one's commands",
                    path.display()
                ));
            }
            Err(errno) => return Err(cannot(&errno)),
        }
    }
}
