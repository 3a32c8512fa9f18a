//! Commands that end by themselves: run to their end within a deadline, with bounded output.

use std::{
    io::{self, Read},
    os::unix::process::CommandExt,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use super::{Cmd, ExecError, Output, process_wide};

/// What a program that has ended wrote is read within this time, even if its deadline is over.
const PIPES: Duration = Duration::from_millis(500);

impl Cmd {
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
        let (handle, [out, err]) = self.start(&command)?;
        {
            let mut running = running.lock().unwrap_or_else(PoisonError::into_inner);
            running.groups = handle.pids();
            if running.given_up {
                end(&running.groups);
            }
        }
        let (stdout, stderr) = (reader(out, self.cap), reader(err, self.cap));
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

    /// Starts it in a process group of its own, and returns the pipes that its output comes from.
    fn start(&self, command: &str) -> Result<(duct::Handle, [io::PipeReader; 2]), ExecError> {
        let io_error = |source| ExecError::Io {
            command: command.to_owned(),
            source,
        };
        let (out_read, out_write) = io::pipe().map_err(io_error)?;
        let (err_read, err_write) = io::pipe().map_err(io_error)?;
        // As an `OsStr`: duct takes a `Path` without a slash for a file of the current folder.
        let mut expression = duct::cmd(self.located().as_os_str(), &self.args)
            .full_env(self.env.iter().cloned())
            .stdout_file(out_write)
            .stderr_file(err_write)
            .unchecked()
            // A group of its own, so that the deadline also ends what it started.
            .before_spawn(|command| {
                command.process_group(0);
                Ok(())
            });
        expression = match process_wide::held() {
            Some(held) if self.stdin.is_empty() => expression.stdin_file(held.try_clone().map_err(io_error)?),
            _ => expression.stdin_bytes(self.stdin.clone()),
        };
        if let Some(dir) = &self.cwd {
            expression = expression.dir(dir);
        }
        // The expression, which goes here, holds our copies of the pipes' write ends: the readers end when it is gone.
        let handle = expression.start().map_err(|source| ExecError::Start {
            command: command.to_owned(),
            program: self.program.display().to_string(),
            source,
        })?;
        Ok((handle, [out_read, err_read]))
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

impl Drop for GiveUp {
    fn drop(&mut self) {
        if process_wide::are_finished() {
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
