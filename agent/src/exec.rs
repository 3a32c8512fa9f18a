//! One step: starts it, reads it, stops it, and leaves nothing of it behind.

pub mod escalation;
pub mod output;
pub mod tail;
pub mod tree;

use std::{
    ffi::OsString,
    fs, io,
    os::unix::{
        ffi::OsStringExt,
        fs::{DirBuilderExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use helios_proto::v1::{self, event, exited};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until, timeout_at},
};

use crate::{
    child::{self, Ended, Launch, Leader},
    outbox::Outbox,
};
use escalation::{Escalation, Stop};
use output::Pump;
use tree::{Tree, Trees};

/// How long output of a dead leader's children is still read, when the node does not say.
const DRAIN: Duration = Duration::from_millis(200);

/// A child that goes on writing keeps the step open for so many drains at most.
const MAX_DRAINS: u32 = 10;

/// An exec that could not be carried out.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// The command itself makes no sense.
    #[error("the command is not valid: {0}")]
    Invalid(String),
    /// Its working directory cannot be used.
    #[error("cannot use the working directory {path}")]
    Directory {
        /// Which.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The script cannot be written.
    #[error("cannot write the script below {path}")]
    Script {
        /// The agent's private directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The program cannot be started.
    #[error("cannot start `{program}`")]
    Start {
        /// Which.
        program: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The program was started and lost.
    #[error("lost track of the process")]
    Lost(#[source] io::Error),
}

/// What an exec listens to while it runs.
#[derive(Debug)]
pub struct Control {
    /// Requests to stop.
    pub stops: mpsc::UnboundedReceiver<Stop>,
    /// Set once output is only to be counted, to the bytes to keep. Its sender lives as long as
    /// the exec.
    pub quiet: watch::Receiver<Option<u64>>,
}

/// A command that was looked at and may be started.
#[derive(Debug)]
struct Prepared {
    program: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(OsString, OsString)>,
    directory: PathBuf,
    drain: Duration,
    /// Removed with everything in it when the exec is over.
    script: Option<Script>,
}

/// Runs one exec to its end and reports all of it but the error.
pub async fn run(
    exec_id: u64,
    exec: v1::Exec,
    trees: &Trees,
    state_dir: &Path,
    outbox: &Arc<Outbox>,
    control: Control,
) -> Result<(), ExecError> {
    let lost = ExecError::Lost;
    let mut prepared = prepare(exec_id, exec, state_dir)?;
    let start = |source| ExecError::Start {
        program: prepared.program.display().to_string(),
        source,
    };
    let mut tree = trees.plant(exec_id).map_err(start)?;
    prepared.environment.extend(tree.marker());
    let spawned = child::spawn(Launch {
        program: &prepared.program,
        arguments: &prepared.arguments,
        environment: &prepared.environment,
        directory: &prepared.directory,
        cgroup: tree.entrance().map_err(start)?,
    })
    .map_err(start)?;
    let mut leader = spawned.leader;
    if let Err(error) = tree.rooted(leader.pid()) {
        leader.kill();
        return Err(lost(error));
    }
    outbox.push(
        exec_id,
        event::Event::Started(v1::Started {
            pid: leader.pid().as_raw().unsigned_abs(),
        }),
    );

    let Control { mut stops, quiet } = control;
    let mut pump = Pump::new(exec_id, outbox.clone(), quiet, spawned.stdout, spawned.stderr);
    {
        let ended = supervise(&mut leader, &tree, &mut stops);
        tokio::pin!(ended);
        loop {
            tokio::select! {
                biased;
                ended = &mut ended => break ended.map_err(lost)?,
                () = pump.step(), if pump.is_open() => {}
            }
        }
    }
    drain(&mut pump, prepared.drain, &mut stops).await;
    let leftovers = tree.clear().await.unwrap_or_else(|error| {
        eprintln!("helios-agent: exec {exec_id} leaves processes behind: {error}");
        0
    });
    pump.finish().await;
    drop(prepared.script);
    let Ended {
        how,
        user_ms,
        system_ms,
    } = leader.reap().map_err(lost)?;
    let how = Some(how.map_or_else(exited::How::Signal, exited::How::Code));
    outbox.push(
        exec_id,
        event::Event::Exited(v1::Exited {
            how,
            leftovers,
            user_ms,
            system_ms,
        }),
    );
    Ok(())
}

/// Waits for the leader's end and carries out requests to stop it.
async fn supervise(leader: &mut Leader, tree: &Tree, stops: &mut mpsc::UnboundedReceiver<Stop>) -> io::Result<()> {
    let mut escalation = Escalation::default();
    loop {
        let due = escalation.due();
        let signal = tokio::select! {
            biased;
            ended = leader.ended() => return ended,
            Some(stop) = stops.recv() => escalation.request(stop, Instant::now()),
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => escalation.advance(Instant::now()),
        };
        if let Err(error) = tree.signal(signal) {
            // One member that may not be signalled does not save the others from the next stage.
            eprintln!("helios-agent: cannot send {signal} to every process: {error}");
        }
    }
}

/// Reads on until the pipes are closed or silent for a while, or somebody wants the end now. Never
/// waits for whoever merely holds a pipe.
async fn drain(pump: &mut Pump, silence: Duration, stops: &mut mpsc::UnboundedReceiver<Stop>) {
    let begun = Instant::now();
    let last = begun + silence * MAX_DRAINS;
    while pump.is_open() && Instant::now() < last {
        let until = last.min(begun.max(pump.last_read()) + silence);
        tokio::select! {
            biased;
            Some(_) = stops.recv() => return,
            stepped = timeout_at(until, pump.step()) => if stepped.is_err() { return },
        }
    }
}

fn prepare(exec_id: u64, exec: v1::Exec, state_dir: &Path) -> Result<Prepared, ExecError> {
    let invalid = |why: String| Err(ExecError::Invalid(why));
    let mut environment = Vec::with_capacity(exec.env.len());
    for v1::EnvVar { name, value } in exec.env {
        if name.is_empty() || name.contains(['=', '\0']) || value.contains(&0) {
            return invalid(format!("{name:?} cannot be set in an environment"));
        }
        environment.push((OsString::from(name), OsString::from_vec(value)));
    }
    if exec.argv.iter().any(|argument| argument.contains('\0')) {
        return invalid("an argument holds a NUL byte".to_owned());
    }
    let directory = PathBuf::from(exec.cwd);
    if !directory.is_absolute() {
        return invalid(format!(
            "the working directory `{}` is not an absolute path",
            directory.display()
        ));
    }
    fs::create_dir_all(&directory).map_err(|source| ExecError::Directory {
        path: directory.clone(),
        source,
    })?;

    let mut argv = exec.argv;
    let script = match exec.script.is_empty() {
        true => None,
        false => {
            let written = Script::write(exec_id, &exec.script, state_dir);
            let script = written.map_err(|source| ExecError::Script {
                path: state_dir.to_owned(),
                source,
            })?;
            let path = script.path().display().to_string();
            argv.iter_mut()
                .filter(|argument| *argument == "{0}")
                .for_each(|argument| argument.clone_from(&path));
            Some(script)
        }
    };
    let mut argv = argv.into_iter();
    let Some(program) = argv.next() else {
        return invalid("it names no program".to_owned());
    };
    let path = environment
        .iter()
        .rev()
        .find(|(name, _)| name == "PATH")
        .map(|(_, value)| value);
    let program = child::find(&program, path).map_err(|source| ExecError::Start { program, source })?;
    let drain = if exec.drain_ms == 0 {
        DRAIN
    } else {
        Duration::from_millis(u64::from(exec.drain_ms))
    };
    Ok(Prepared {
        program,
        arguments: argv.collect(),
        environment,
        directory,
        drain,
        script,
    })
}

/// A script in a directory of its own that only the agent's user may enter.
#[derive(Debug)]
struct Script {
    directory: PathBuf,
}

impl Script {
    fn write(exec_id: u64, text: &str, state_dir: &Path) -> io::Result<Self> {
        let script = Self {
            directory: state_dir.join(format!("exec-{exec_id}-{}", crate::random::hex::<4>()?)),
        };
        fs::DirBuilder::new().mode(0o700).create(&script.directory)?;
        let options = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o700)
            .open(script.path());
        io::Write::write_all(&mut options?, text.as_bytes())?;
        Ok(script)
    }

    fn path(&self) -> PathBuf {
        self.directory.join("script")
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        // A step may have put something there; it goes too.
        if let Err(error) = fs::remove_dir_all(&self.directory) {
            eprintln!("helios-agent: cannot remove {}: {error}", self.directory.display());
        }
    }
}

#[cfg(test)]
mod tests;
