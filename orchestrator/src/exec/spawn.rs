//! Processes that run beside this one: with pipes that are read meanwhile, at a person's terminal, or on their own.

use std::{os::unix::process::CommandExt, path::Path, process::Stdio};

use super::{Cmd, ExecError};

impl Cmd {
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
        let mut process = std::process::Command::new(self.located());
        process
            .args(&self.args)
            .env_clear()
            .envs(self.env.iter().cloned())
            .process_group(0);
        process.stdin(Stdio::null()).stdout(out).stderr(err);
        if let Some(dir) = &self.cwd {
            process.current_dir(dir);
        }
        let mut child = process.spawn().map_err(|source| ExecError::Start {
            command,
            program: self.program.display().to_string(),
            source,
        })?;
        let pid = child.id();
        // Somebody must wait for it while we live, or it stays a zombie and looks alive.
        std::thread::spawn(move || drop(child.wait()));
        Ok(pid)
    }

    fn tokio(&self, stdin: Stdio, stdout: Stdio, stderr: Stdio) -> tokio::process::Command {
        #[allow(clippy::disallowed_methods, reason = "this is the one module that spawns")]
        let mut process = tokio::process::Command::new(self.located());
        process.args(&self.args).env_clear().envs(self.env.iter().cloned());
        process.stdin(stdin).stdout(stdout).stderr(stderr);
        if let Some(dir) = &self.cwd {
            process.current_dir(dir);
        }
        process
    }
}
