//! One step: starts it, reads it, stops it, and knows what it leaves behind.

pub mod escalation;
pub mod output;
pub mod pipes;
mod survivors;
pub mod tail;
pub mod tree;

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs, io,
    os::unix::{
        ffi::OsStringExt,
        fs::{DirBuilderExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use helios_proto::v1::{self, event, exited};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep, sleep_until},
};

use crate::{
    child::{self, Ended, Launch, Leader},
    outbox::Outbox,
};
use escalation::{Escalation, Stop};
use output::Pump;
use pipes::Pipes;
pub use survivors::Survivors;
use tree::{Tree, Trees};

/// How long output of a dead leader's children is still read at most, when the node does not say.
const DRAIN: Duration = Duration::from_millis(200);

/// How often the children of a dead leader are looked at meanwhile.
const LOOK: Duration = Duration::from_millis(2);

/// Set where this machine is a process of its node: by its value the node finds whatever belongs to the machine, so
/// every step carries it on.
const MACHINE: &str = "HELIOS_CI_MACHINE";

/// An exec that could not be carried out.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// The command itself makes no sense.
    #[error("the command is not valid: {0}")]
    Invalid(String),
    /// A directory cannot be made.
    #[error("cannot make the directory {path}")]
    Directory {
        /// Which.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Its working directory is not there.
    #[error("the working directory {path} {what}")]
    WorkingDirectory {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
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

/// What all execs of one machine share.
#[derive(Debug)]
pub struct Place {
    /// How the processes of an exec are found.
    pub trees: Trees,
    /// The agent's private directory.
    pub state_dir: PathBuf,
    /// Where their events go.
    pub outbox: Arc<Outbox>,
    /// What those that have ended have left running.
    pub survivors: Survivors,
    /// The directories that were made once.
    made: Mutex<BTreeSet<PathBuf>>,
}

impl Place {
    /// A place without any exec yet.
    pub fn new(trees: Trees, state_dir: PathBuf, outbox: Arc<Outbox>) -> Self {
        Self {
            trees,
            state_dir,
            outbox,
            survivors: Survivors::default(),
            made: Mutex::default(),
        }
    }

    /// Makes directories that no exec has named before. One that was removed since stays away: a step that misses it
    /// must hear so.
    fn make(&self, directories: Vec<String>) -> Result<(), ExecError> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        for path in directories.into_iter().map(PathBuf::from) {
            if made.contains(&path) {
                continue;
            }
            if !path.is_absolute() {
                let why = format!("the directory `{}` is not an absolute path", path.display());
                return Err(ExecError::Invalid(why));
            }
            make(&path)?;
            made.insert(path);
        }
        Ok(())
    }
}

fn make(path: &Path) -> Result<(), ExecError> {
    fs::create_dir_all(path).map_err(|source| ExecError::Directory {
        path: path.to_owned(),
        source,
    })
}

/// A command that was looked at and may be started.
#[derive(Debug)]
struct Prepared {
    program: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(OsString, OsString)>,
    directory: PathBuf,
    drain: Duration,
    /// What the leader leaves running is not killed.
    outlives: bool,
    /// Removed with everything in it when the exec is over.
    script: Option<Script>,
}

/// Runs one exec to its end and reports all of it but the error.
pub async fn run(exec_id: u64, exec: v1::Exec, place: &Place, control: Control) -> Result<(), ExecError> {
    let lost = ExecError::Lost;
    let mut prepared = prepare(exec_id, exec, place)?;
    let start = |source| ExecError::Start {
        program: prepared.program.display().to_string(),
        source,
    };
    let mut tree = place.trees.plant(exec_id).map_err(start)?;
    prepared.environment.extend(tree.marker());
    let (pipes, writers) = Pipes::open().map_err(start)?;
    let launch = Launch {
        program: &prepared.program,
        arguments: &prepared.arguments,
        environment: &prepared.environment,
        directory: &prepared.directory,
        cgroup: tree.entrance().map_err(start)?,
    };
    let mut leader = child::spawn(launch, writers).map_err(start)?;
    if let Err(error) = tree.rooted(leader.pid()) {
        leader.kill();
        return Err(lost(error));
    }
    place.outbox.push(
        exec_id,
        event::Event::Started(v1::Started {
            pid: leader.pid().as_raw().unsigned_abs(),
        }),
    );

    let Control { mut stops, quiet } = control;
    let mut pump = Pump::new(exec_id, place.outbox.clone(), quiet, pipes);
    let stopped = {
        let ended = supervise(&mut leader, &tree, &mut stops);
        tokio::pin!(ended);
        loop {
            tokio::select! {
                biased;
                ended = &mut ended => break ended.map_err(lost)?,
                () = pump.step(), if pump.is_busy() => {}
            }
        }
    };
    let stopped = drain(&mut pump, &tree, prepared.drain, &mut stops).await || stopped;
    let lives_on = prepared.outlives && !stopped;
    let leftovers = match lives_on {
        true => 0,
        false => tree.clear().await.unwrap_or_else(|error| {
            eprintln!("helios-agent: exec {exec_id} leaves processes behind: {error}");
            0
        }),
    };
    let pipes = pump.finish().await;
    drop(prepared.script);
    let Ended {
        how,
        user_ms,
        system_ms,
    } = leader.reap().map_err(lost)?;
    let survivors = match lives_on {
        true => place.survivors.adopt(tree, pipes),
        false => 0,
    };
    let how = Some(how.map_or_else(exited::How::Signal, exited::How::Code));
    place.outbox.push(
        exec_id,
        event::Event::Exited(v1::Exited {
            how,
            leftovers,
            user_ms,
            system_ms,
            survivors,
        }),
    );
    Ok(())
}

/// Waits for the leader's end and carries out requests to stop it. Whether there was one.
async fn supervise(leader: &mut Leader, tree: &Tree, stops: &mut mpsc::UnboundedReceiver<Stop>) -> io::Result<bool> {
    let mut escalation = Escalation::default();
    loop {
        let due = escalation.due();
        let signal = tokio::select! {
            biased;
            ended = leader.ended() => return ended.map(|()| due.is_some()),
            Some(stop) = stops.recv() => escalation.request(stop, Instant::now()),
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => escalation.advance(Instant::now()),
        };
        if let Err(error) = tree.signal(signal) {
            // One member that may not be signalled does not save the others from the next stage.
            eprintln!("helios-agent: cannot send {signal} to every process: {error}");
        }
    }
}

/// Reads on for those that the leader's end sets in motion (`tee` behind a redirection), until nobody of the tree is
/// left or at work any more, time is up, or somebody wants the end now; whether that was it. Never waits for whoever
/// merely holds a pipe.
async fn drain(pump: &mut Pump, tree: &Tree, limit: Duration, stops: &mut mpsc::UnboundedReceiver<Stop>) -> bool {
    let last = Instant::now() + limit;
    let mut idle = false;
    while (pump.is_busy() || !tree.is_empty()) && Instant::now() < last {
        tokio::select! {
            biased;
            Some(_) = stops.recv() => return true,
            () = pump.step() => idle = false,
            () = sleep(LOOK) => {
                // Twice, with no output between: what it wrote before the first look was read by the second.
                let before = std::mem::replace(&mut idle, tree.is_idle());
                if before && idle {
                    return false;
                }
            }
        }
    }
    false
}

fn prepare(exec_id: u64, mut exec: v1::Exec, place: &Place) -> Result<Prepared, ExecError> {
    let invalid = |why: String| Err(ExecError::Invalid(why));
    let mut environment = Vec::with_capacity(exec.env.len());
    for v1::EnvVar { name, value } in std::mem::take(&mut exec.env) {
        if name.is_empty() || name.contains(['=', '\0']) || value.contains(&0) {
            return invalid(format!("{name:?} cannot be set in an environment"));
        }
        environment.push((OsString::from(name), OsString::from_vec(value)));
    }
    environment.extend(std::env::var_os(MACHINE).map(|value| (OsString::from(MACHINE), value)));
    let directory = working_directory(&mut exec, place)?;
    let path = environment
        .iter()
        .rev()
        .find(|(name, _)| name == "PATH")
        .map(|(_, value)| value);
    let (program, mut arguments) = choose(&mut exec, path)?;
    let script = match exec.script.is_empty() {
        true => None,
        false => {
            let written = Script::write(exec_id, &exec.script, &place.state_dir);
            let script = written.map_err(|source| ExecError::Script {
                path: place.state_dir.clone(),
                source,
            })?;
            let path = script.path().display().to_string();
            arguments
                .iter_mut()
                .filter(|argument| *argument == "{0}")
                .for_each(|argument| argument.clone_from(&path));
            Some(script)
        }
    };
    let drain = if exec.drain_ms == 0 {
        DRAIN
    } else {
        Duration::from_millis(u64::from(exec.drain_ms))
    };
    Ok(Prepared {
        program,
        arguments,
        environment,
        directory,
        drain,
        outlives: exec.outlives,
        script,
    })
}

/// Where the exec starts, which exists then.
fn working_directory(exec: &mut v1::Exec, place: &Place) -> Result<PathBuf, ExecError> {
    let path = PathBuf::from(std::mem::take(&mut exec.cwd));
    if !path.is_absolute() {
        let why = format!("the working directory `{}` is not an absolute path", path.display());
        return Err(ExecError::Invalid(why));
    }
    if exec.directories.is_empty() {
        make(&path)?;
        return Ok(path);
    }
    place.make(std::mem::take(&mut exec.directories))?;
    match path.metadata() {
        Ok(found) if found.is_dir() => Ok(path),
        Ok(_) => Err(ExecError::WorkingDirectory {
            path,
            what: "is not a directory",
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(ExecError::WorkingDirectory {
            path,
            what: "does not exist",
        }),
        Err(_) => Err(ExecError::WorkingDirectory {
            path,
            what: "cannot be entered",
        }),
    }
}

/// The program and its arguments: those of the first choice whose program there is.
fn choose(exec: &mut v1::Exec, path: Option<&OsString>) -> Result<(PathBuf, Vec<String>), ExecError> {
    let mut choices: Vec<_> = exec.choices.drain(..).map(|choice| choice.words).collect();
    if choices.is_empty() {
        choices.push(std::mem::take(&mut exec.argv));
    }
    let mut first = None;
    for words in choices {
        if words.iter().any(|word| word.contains('\0')) {
            return Err(ExecError::Invalid("an argument holds a NUL byte".to_owned()));
        }
        let mut words = words.into_iter();
        let Some(program) = words.next() else {
            return Err(ExecError::Invalid("it names no program".to_owned()));
        };
        match child::find(&program, path) {
            Ok(found) => return Ok((found, words.collect())),
            Err(source) => first = first.or(Some(ExecError::Start { program, source })),
        }
    }
    Err(first.unwrap_or_else(|| ExecError::Invalid("it names no program".to_owned())))
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
