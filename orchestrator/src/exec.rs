//! The only place that spawns processes. `run` is for commands that end by themselves (bounded
//! output, deadline); `stream` is for processes whose pipes are read while they run. Both start
//! from an empty environment with `LC_ALL=C`, so that no secret of the daemon reaches a helper and
//! no locale changes a text that is parsed.
//!
//! ```text
//!  Cmd ─▶ spawn, in a process group of its own ─▶ two readers, each bounded by `cap` ─▶ exit ─▶ ends of the pipes ─▶ Output
//!                                                                                      └── deadline ──┴─▶ group killed
//! ```
//!
//! **What a program left behind may hold its pipes** after its exit. They are read to their ends within the same deadline,
//! and at least half a second; then the group is killed.
//!
//! **A deadline kills the group**, so that helpers of the program go with it. A command of a host that must not be cut in
//! the middle (`zfs`, `zoneadm`) gets a deadline that only ends a hang.
//!
//! **A command can outlive a daemon that was killed.** `children_hold` lets each command hold a lock that the next daemon
//! waits for, so that nobody acts beside it.

use std::{
    ffi::{OsStr, OsString},
    fmt,
    fs::File,
    io::{self, Read},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

/// What a program that has ended wrote is read within this time, even if its deadline is over.
const PIPES: Duration = Duration::from_millis(500);

/// See [`children_hold`].
static HELD: OnceLock<File> = OnceLock::new();

/// From now on every command run to its end holds this file open, as the empty file on its standard
/// input. A lock (`flock`) taken on it therefore lasts until this process *and its last command* are
/// gone: an SMF restarter does not kill the commands of a process that crashed, and who starts next
/// must not act beside them.
pub fn children_hold(file: File) {
    let _only_the_first_counts = HELD.set(file);
}

/// A command: program, arguments, environment. Nothing goes through a shell.
#[derive(Clone)]
pub struct Cmd {
    program: PathBuf,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    cwd: Option<PathBuf>,
    stdin: Vec<u8>,
    deadline: Duration,
    cap: usize,
}

/// What a finished command left.
#[derive(Debug, Clone)]
pub struct Output {
    /// The command as a person could type it.
    pub command: String,
    /// Exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// At most the command's cap; what came beyond is read and dropped.
    pub stdout: Vec<u8>,
    /// As `stdout`.
    pub stderr: Vec<u8>,
    /// Wall time.
    pub elapsed: Duration,
}

/// A command that could not be run or did not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// The program could not be started.
    #[error("cannot start `{command}`: is {program} installed?")]
    Start {
        /// The whole command.
        command: String,
        /// Its program.
        program: String,
        /// The system's word.
        #[source]
        source: io::Error,
    },
    /// It ran past its deadline and was killed.
    #[error("`{command}` did not end within {seconds} s and was killed")]
    Deadline {
        /// The whole command.
        command: String,
        /// The deadline.
        seconds: u64,
    },
    /// It ended with another exit code than 0.
    #[error("`{command}` failed with {how}: {stderr}")]
    Failed {
        /// The whole command.
        command: String,
        /// `exit code 2` or `a signal`.
        how: String,
        /// The last lines of its standard error.
        stderr: String,
    },
    /// Its pipes could not be read.
    #[error("lost the output of `{command}`")]
    Io {
        /// The whole command.
        command: String,
        /// The system's word.
        #[source]
        source: io::Error,
    },
}

impl Cmd {
    /// A command with an empty environment but `LC_ALL=C` and the daemon's own `PATH`; a deadline
    /// of 60 s; 1 MiB of each output kept.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/sbin:/usr/bin:/sbin:/bin".into());
        Self {
            program: program.into(),
            args: Vec::new(),
            env: vec![("LC_ALL".into(), "C".into()), ("PATH".into(), path)],
            cwd: None,
            stdin: Vec::new(),
            deadline: Duration::from_secs(60),
            cap: 1 << 20,
        }
    }

    /// Adds one argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(mut self, args: I) -> Self {
        self.args.extend(args.into_iter().map(|a| a.as_ref().to_owned()));
        self
    }

    /// Sets these variables, a person's own; but what is said is still parsed, so the locale stays ours.
    #[must_use]
    pub fn envs(mut self, vars: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        self.env.extend(vars.into_iter().filter(|(name, _)| name != "LC_ALL"));
        self
    }

    /// Sets one variable.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Runs it in this directory.
    #[must_use]
    pub fn cwd(mut self, dir: impl AsRef<Path>) -> Self {
        self.cwd = Some(dir.as_ref().to_owned());
        self
    }

    /// Gives it these bytes on standard input (otherwise it reads nothing).
    #[must_use]
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = bytes.into();
        self
    }

    /// Kills it after this long.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Divides the deadline; 0 counts as 1.
    #[must_use]
    pub fn scale_deadline(mut self, divisor: u32) -> Self {
        self.deadline /= divisor.max(1);
        self
    }

    /// Keeps at most this many bytes of each output.
    #[must_use]
    pub fn cap(mut self, bytes: usize) -> Self {
        self.cap = bytes;
        self
    }

    /// Runs it to its end. Any exit code is a result here; see [`Output::ok`].
    ///
    /// # Errors
    /// When it cannot be started, overstays its deadline, or its pipes break.
    ///
    /// Dropping the future ends the program and everything it started.
    pub async fn run(self) -> Result<Output, ExecError> {
        let text = self.to_string();
        let running = Arc::new(Mutex::new(Running::default()));
        let _given_up = GiveUp(Arc::clone(&running));
        match tokio::task::spawn_blocking(move || self.run_watched(&running)).await {
            Ok(result) => result,
            Err(error) => Err(ExecError::Io {
                command: text,
                source: io::Error::other(error),
            }),
        }
    }

    /// As [`Cmd::run`], for callers that are not asynchronous.
    ///
    /// # Errors
    /// As [`Cmd::run`].
    pub fn run_blocking(self) -> Result<Output, ExecError> {
        self.run_watched(&Mutex::default())
    }

    fn run_watched(self, running: &Mutex<Running>) -> Result<Output, ExecError> {
        let command = self.to_string();
        let io_error = |source| ExecError::Io {
            command: command.clone(),
            source,
        };
        let started = Instant::now();
        let (out_read, out_write) = io::pipe().map_err(io_error)?;
        let (err_read, err_write) = io::pipe().map_err(io_error)?;
        // As an `OsStr`: duct takes a `Path` without a slash for a file of the current folder.
        let mut expression = duct::cmd(self.program.as_os_str(), &self.args)
            .full_env(self.env.iter().cloned())
            .stdout_file(out_write)
            .stderr_file(err_write)
            .unchecked()
            // A group of its own, so that the deadline also ends what it started.
            .before_spawn(|command| {
                command.process_group(0);
                Ok(())
            });
        expression = match HELD.get() {
            Some(held) if self.stdin.is_empty() => expression.stdin_file(held.try_clone().map_err(io_error)?),
            _ => expression.stdin_bytes(self.stdin.clone()),
        };
        if let Some(dir) = &self.cwd {
            expression = expression.dir(dir);
        }
        let handle = expression.start().map_err(|source| ExecError::Start {
            command: command.clone(),
            program: self.program.display().to_string(),
            source,
        })?;
        // The expression holds our copies of the pipes' write ends; the readers end when it is gone.
        drop(expression);
        {
            let mut running = running.lock().unwrap_or_else(PoisonError::into_inner);
            running.groups = handle.pids();
            if running.given_up {
                end(&running.groups);
            }
        }
        let cap = self.cap;
        let (stdout, stderr) = (reader(out_read, cap), reader(err_read, cap));
        let waited = handle.wait_timeout(self.deadline);
        let late = || ExecError::Deadline {
            command: command.clone(),
            seconds: self.deadline.as_secs(),
        };
        // What has ended is no longer ours to end: its number may soon be another's.
        let groups = std::mem::take(&mut running.lock().unwrap_or_else(PoisonError::into_inner).groups);
        let Some(output) = waited.map_err(io_error)? else {
            end(&groups);
            let _killed = handle.kill();
            return Err(late());
        };
        let code = output.status.code();
        // What it started may outlive it and hold its pipes: the deadline is for that, too. The group's number
        // is nobody else's while a member of it lives.
        let text = |from: Receiver<io::Result<Vec<u8>>>| {
            let left = self.deadline.saturating_sub(started.elapsed()).max(PIPES);
            match from.recv_timeout(left) {
                Ok(read) => read.map_err(io_error),
                Err(RecvTimeoutError::Timeout) => {
                    end(&groups);
                    Err(late())
                }
                Err(RecvTimeoutError::Disconnected) => Err(io_error(io::Error::other("a reader thread panicked"))),
            }
        };
        Ok(Output {
            code,
            stdout: text(stdout)?,
            stderr: text(stderr)?,
            elapsed: started.elapsed(),
            command: command.clone(),
        })
    }

    /// Starts it with pipes for all three streams, in a process group of its own. It is killed when
    /// the returned child is dropped.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn stream(self) -> Result<tokio::process::Child, ExecError> {
        let mut process = self.tokio(Stdio::piped(), Stdio::piped(), Stdio::piped());
        process.process_group(0);
        self.spawn(&mut process)
    }

    /// As [`Cmd::stream`], for what may have to ask the person at the terminal: it stays in this process's group, which
    /// alone may read there, and what it says on standard error goes there as it is.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn attended(self) -> Result<tokio::process::Child, ExecError> {
        let mut process = self.tokio(Stdio::piped(), Stdio::piped(), Stdio::inherit());
        self.spawn(&mut process)
    }

    fn spawn(&self, process: &mut tokio::process::Command) -> Result<tokio::process::Child, ExecError> {
        process.kill_on_drop(true).spawn().map_err(|source| ExecError::Start {
            command: self.to_string(),
            program: self.program.display().to_string(),
            source,
        })
    }

    /// Starts it as a process that outlives this one: a group of its own, no standard input, output
    /// appended to `log`. Returns its process id; who calls must find it again by other means.
    ///
    /// # Errors
    /// When it cannot be started or the log cannot be opened.
    pub fn detach(self, log: &Path) -> Result<u32, ExecError> {
        let command = self.to_string();
        let open = || std::fs::OpenOptions::new().create(true).append(true).open(log);
        let files = open().and_then(|a| open().map(|b| (a, b)));
        let (out, err) = files.map_err(|source| ExecError::Io {
            command: command.clone(),
            source,
        })?;
        #[allow(clippy::disallowed_methods, reason = "this is the one module that spawns")]
        let mut process = std::process::Command::new(&self.program);
        process
            .args(&self.args)
            .env_clear()
            .envs(self.env.iter().cloned())
            .process_group(0);
        process.stdin(Stdio::null()).stdout(out).stderr(err);
        if let Some(dir) = &self.cwd {
            process.current_dir(dir);
        }
        let child = process.spawn().map_err(|source| ExecError::Start {
            command,
            program: self.program.display().to_string(),
            source,
        })?;
        let pid = child.id();
        // Somebody must wait for it while we live, or it stays a zombie and looks alive.
        let child = Arc::new(std::sync::Mutex::new(child));
        std::thread::spawn(move || {
            if let Ok(mut child) = child.lock() {
                let _status = child.wait();
            }
        });
        Ok(pid)
    }

    fn tokio(&self, stdin: Stdio, stdout: Stdio, stderr: Stdio) -> tokio::process::Command {
        #[allow(clippy::disallowed_methods, reason = "this is the one module that spawns")]
        let mut process = tokio::process::Command::new(&self.program);
        process.args(&self.args).env_clear().envs(self.env.iter().cloned());
        process.stdin(stdin).stdout(stdout).stderr(stderr);
        if let Some(dir) = &self.cwd {
            process.current_dir(dir);
        }
        process
    }
}

impl Output {
    /// The output, when the exit code is 0.
    ///
    /// # Errors
    /// [`ExecError::Failed`] with the end of its standard error.
    pub fn ok(self) -> Result<Self, ExecError> {
        if self.code == Some(0) {
            return Ok(self);
        }
        let how = self
            .code
            .map_or_else(|| "a signal".to_owned(), |code| format!("exit code {code}"));
        Err(ExecError::Failed {
            command: self.command.clone(),
            how,
            stderr: self.stderr_tail(),
        })
    }

    /// Standard output as text; bytes that are not UTF-8 are replaced.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// The last 2000 characters of standard error, in one line.
    #[must_use]
    pub fn stderr_tail(&self) -> String {
        let text = String::from_utf8_lossy(&self.stderr);
        let text = text.trim();
        let skip = text.chars().count().saturating_sub(2000);
        text.chars()
            .skip(skip)
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect()
    }
}

/// The command line alone: the standard input and the environment may hold secrets.
impl fmt::Debug for Cmd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cmd({self})")
    }
}

/// The command line as a person could paste it into a shell.
impl fmt::Display for Cmd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&quote(self.program.as_os_str()))?;
        for arg in &self.args {
            write!(f, " {}", quote(arg))?;
        }
        Ok(())
    }
}

fn quote(word: &OsStr) -> String {
    let text = word.to_string_lossy();
    let plain = !text.is_empty()
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_./:=,@%+".contains(&b));
    if plain {
        text.into_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

/// What a thread waits for, seen by the future that waits for the thread.
#[derive(Default)]
struct Running {
    /// The process groups, while they run.
    groups: Vec<u32>,
    /// Nobody waits any more.
    given_up: bool,
}

/// Ends what still runs when it is dropped.
struct GiveUp(Arc<Mutex<Running>>);

/// Commands are left to their ends, whoever asked for them.
static FINISHED: AtomicBool = AtomicBool::new(false);

/// From now on commands that nobody waits for any more are not ended, but run to their ends or deadlines: a process that
/// stops leaves none of them half done. The runtime's own end waits for them.
pub fn finish_commands() {
    FINISHED.store(true, Ordering::SeqCst);
}

impl Drop for GiveUp {
    fn drop(&mut self) {
        if FINISHED.load(Ordering::SeqCst) {
            return;
        }
        let mut running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        running.given_up = true;
        end(&running.groups);
    }
}

fn end(groups: &[u32]) {
    for group in groups {
        let group = nix::unistd::Pid::from_raw(i32::try_from(*group).unwrap_or(i32::MAX));
        let _already_gone = nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL);
    }
}

/// Reads a pipe to its end, in a thread of its own.
fn reader(from: io::PipeReader, cap: usize) -> Receiver<io::Result<Vec<u8>>> {
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let _nobody_waits_any_more = sender.send(read_capped(from, cap));
    });
    receiver
}

fn read_capped(mut from: impl Read, cap: usize) -> io::Result<Vec<u8>> {
    let mut kept = Vec::new();
    let mut buffer = [0; 16 * 1024];
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(kept),
            n => kept.extend_from_slice(&buffer[..n.min(cap.saturating_sub(kept.len()))]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deadline;

    /// For commands that do not end.
    const SHORT: Duration = Duration::from_millis(200);

    fn sh(script: &str) -> Cmd {
        Cmd::new("/bin/sh").arg("-c").arg(script)
    }

    #[test]
    fn output_and_code_come_back_and_the_environment_is_empty() {
        let output = sh("env; echo no >&2; exit 3").env("A", "b c").run_blocking().unwrap();
        assert_eq!(output.code, Some(3));
        let text = output.text();
        assert!(
            text.contains("A=b c") && text.contains("LC_ALL=C") && !text.contains("HOME="),
            "{text}"
        );
        let error = output.ok().unwrap_err().to_string();
        assert!(error.contains("exit code 3") && error.contains("no"), "{error}");
    }

    #[test]
    fn output_beyond_the_cap_is_read_and_dropped() {
        let output = sh("head -c 300000 /dev/zero").cap(1000).run_blocking().unwrap();
        assert_eq!((output.code, output.stdout.len()), (Some(0), 1000));
    }

    #[tokio::test]
    async fn a_dropped_run_ends_the_command_and_its_children() {
        let folder = tempfile::tempdir().unwrap();
        let (begun, pipe) = (folder.path().join("begun"), folder.path().join("pipe"));
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        // Both hold the pipe open for writing: its reader sees the end when the last of them is gone.
        let script = format!(
            "exec 3<>{pipe}; (sleep 600) & touch {begun}; sleep 600",
            pipe = pipe.display(),
            begun = begun.display()
        );
        let run = tokio::spawn(sh(&script).run());
        while !begun.exists() {
            tokio::task::yield_now().await;
        }
        // Opened while a writer has it open: after the abort nobody might come any more.
        let mut file = std::fs::File::open(&pipe).unwrap();
        let mut reader = tokio::task::spawn_blocking(move || file.read(&mut [0; 1]).unwrap());
        run.abort();
        let end = tokio::time::timeout(deadline::PROMPT, &mut reader).await;
        assert_eq!(end.expect("somebody still holds the pipe").unwrap(), 0);
    }

    #[test]
    fn the_deadline_ends_the_command_and_its_children() {
        let started = Instant::now();
        let error = sh("sleep 600 & sleep 600").deadline(SHORT).run_blocking().unwrap_err();
        assert!(matches!(error, ExecError::Deadline { .. }), "{error}");
        assert!(started.elapsed() < deadline::PROMPT);
    }

    #[test]
    fn the_deadline_ends_children_that_outlive_the_command() {
        let started = Instant::now();
        let error = sh("sleep 600 & exit 0").deadline(SHORT).run_blocking().unwrap_err();
        assert!(matches!(error, ExecError::Deadline { .. }), "{error}");
        assert!(started.elapsed() < deadline::PROMPT);
    }

    #[test]
    fn a_bare_name_is_found_by_path() {
        assert_eq!(Cmd::new("true").run_blocking().unwrap().code, Some(0));
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = Cmd::new("/nonexistent/program").run_blocking().unwrap_err().to_string();
        assert!(error.contains("/nonexistent/program"), "{error}");
    }

    #[test]
    fn the_command_is_shown_as_it_could_be_pasted() {
        assert_eq!(sh("echo 'a'").to_string(), r#"/bin/sh -c 'echo '\''a'\'''"#);
    }

    #[tokio::test]
    async fn standard_input_is_given_whole() {
        let output = Cmd::new("/bin/cat")
            .stdin(vec![b'x'; 200_000])
            .run()
            .await
            .unwrap()
            .ok()
            .unwrap();
        assert_eq!(output.stdout.len(), 200_000);
    }
}
