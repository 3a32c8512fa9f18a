//! A daemon as an administrator has it: its folder, its configuration, its process, its command line. Which forges it
//! works for is the configuration's business.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::Instant,
};

use serde_json::Value;

use super::{Machines, agent, deadline, guest, helios_ci, hold, pause, pause_after, port::Port};

/// A daemon's files, and the daemon. It dies with its test.
pub struct Installation {
    /// Everything lies below it.
    pub dir: tempfile::TempDir,
    machines: Machines,
    port: Port,
    token: String,
    pub(super) daemon: Option<Child>,
}

impl Installation {
    /// A daemon that is not started yet. `connections` is a section of the configuration, written for the folder in
    /// which the secrets (file name, content) lie; `extra` is more of it.
    pub fn stopped(
        machines: Machines,
        secrets: &[(&str, &str)],
        connections: impl FnOnce(&Path) -> String,
        extra: &str,
    ) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("hci")
            .tempdir()
            .expect("a temporary directory");
        for (name, content) in secrets {
            helios_fakeforge::write_private(&dir.path().join(name), content).expect("a secret's file");
        }
        let connections = connections(dir.path());
        let mut made = Self {
            dir,
            machines,
            port: Port::reserve(),
            token: String::new(),
            daemon: None,
        };
        made.write_config(&connections, extra);
        let token = made.cli(&["token", "create", "tests"]);
        assert!(token.status.success(), "{}", String::from_utf8_lossy(&token.stderr));
        made.token = String::from_utf8_lossy(&token.stdout).trim().to_owned();
        made
    }

    /// Where a forge sends the webhooks of this connection.
    pub fn hook_url(&self, connection: &str) -> String {
        format!("{}/hooks/{connection}", self.url())
    }

    /// The configuration's file.
    pub fn config(&self) -> PathBuf {
        self.dir.path().join("config.yaml")
    }

    /// The daemon's data directory.
    pub fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Where the daemon listens.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port())
    }

    /// The port of that.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// A token of a site admin.
    pub fn token(&self) -> &str {
        &self.token
    }

    fn write_config(&self, connections: &str, extra: &str) {
        fs::create_dir_all(self.data()).expect("the data directory");
        fs::set_permissions(self.data(), fs::Permissions::from_mode(0o700)).expect("its mode");
        let backend = match self.machines {
            Machines::Qemu => "qemu",
            Machines::Process => "process",
            Machines::Zone => "zone",
        };
        let image = match guest() {
            Some(guest) if self.machines == Machines::Qemu => {
                let guest = guest.display();
                format!("disk: {guest}/disk.qcow2\n    kernel: {guest}/vmlinuz\n    initrd: {guest}/initrd.img")
            }
            _ if self.machines == Machines::Zone => "kind: linux-uefi".to_owned(),
            _ => "disk: /nonexistent/not-used-by-processes.qcow2".to_owned(),
        };
        let text = format!(
            "node: test-node
data_dir: {data}
listen: 127.0.0.1:{port}
backend: {backend}
agent: {agent}
{connections}images:
  tiny:
    {image}
    size: {{cpus: 1, memory_mib: 512}}
    boot_timeout_s: {boot_timeout_s}
aliases:
  ubuntu-latest: tiny
default_label: tiny
{extra}",
            data = self.data().display(),
            port = self.port(),
            agent = agent().display(),
            boot_timeout_s = deadline::GUEST.as_secs(),
        );
        fs::write(self.config(), text).expect("the configuration");
    }

    /// Starts the daemon and waits until it is ready.
    pub fn up(&mut self) {
        self.up_with(&[]);
    }

    /// As [`Installation::up`], with environment of its own (fail points).
    pub fn up_with(&mut self, env: &[(&str, &str)]) {
        self.launch(env);
        self.ready();
    }

    /// Starts the daemon without waiting.
    pub fn launch(&mut self, env: &[(&str, &str)]) {
        self.launch_as(Command::new(helios_ci()), env);
    }

    /// As [`Installation::launch`], by a program that becomes the daemon.
    pub fn launch_as(&mut self, mut command: Command, env: &[(&str, &str)]) {
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.dir.path().join("daemon.log"))
            .expect("the log");
        command.arg("--config").arg(self.config()).arg("serve");
        if self.machines == Machines::Process {
            command.arg("--allow-unisolated");
        }
        command
            .env("RUST_LOG", "info,helios_ci=debug")
            .envs(env.iter().copied());
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the daemon starts");
        self.daemon = Some(child);
    }

    /// Waits until the daemon answers.
    pub fn ready(&mut self) {
        let started = Instant::now();
        while !self.answers() {
            let ended = self.daemon.as_mut().and_then(|d| d.try_wait().expect("its state"));
            assert!(
                ended.is_none(),
                "the daemon ended with {ended:?}:\n{}",
                self.daemon_log()
            );
            assert!(
                started.elapsed() < deadline::GUEST,
                "the daemon is not ready:\n{}",
                self.daemon_log()
            );
            pause();
        }
    }

    fn answers(&self) -> bool {
        use std::io::{Read, Write};
        let Ok(mut stream) = std::net::TcpStream::connect(("127.0.0.1", self.port())) else {
            return false;
        };
        let request = format!(
            "GET /readyz HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nConnection: close\r\n\r\n",
            self.port()
        );
        let mut answer = String::new();
        stream.write_all(request.as_bytes()).is_ok()
            && stream.read_to_string(&mut answer).is_ok()
            && answer.starts_with("HTTP/1.1 200")
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.kill().ok();
            daemon.wait().expect("the daemon is gone");
        }
    }

    /// SIGTERM, and its exit code.
    pub fn down(&mut self) -> Option<i32> {
        self.signal(nix::sys::signal::Signal::SIGTERM);
        self.daemon.take()?.wait().expect("the daemon is gone").code()
    }

    /// A signal to the daemon, if it runs.
    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        if let Some(daemon) = &self.daemon {
            let pid = nix::unistd::Pid::from_raw(i32::try_from(daemon.id()).expect("a pid"));
            nix::sys::signal::kill(pid, signal).ok();
        }
    }

    /// Waits until the daemon died by itself (a fail point).
    pub fn died(&mut self) {
        let started = Instant::now();
        while self.is_up() {
            assert!(
                started.elapsed() < deadline::GUEST,
                "the daemon did not die:\n{}",
                self.daemon_log()
            );
            pause();
        }
        self.daemon = None;
    }

    /// Whether the daemon is running.
    pub fn is_up(&mut self) -> bool {
        self.daemon
            .as_mut()
            .is_some_and(|d| d.try_wait().expect("its state").is_none())
    }

    /// What the daemon wrote.
    pub fn daemon_log(&self) -> String {
        fs::read_to_string(self.dir.path().join("daemon.log")).unwrap_or_default()
    }

    /// Runs `helios-ci` as a person would on the server.
    pub fn cli(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("the command line runs")
    }

    /// The same, not started yet.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(helios_ci());
        command.arg("--config").arg(self.config()).args(args);
        if !self.token.is_empty() {
            command.env("HELIOS_CI_TOKEN", &self.token);
        }
        command
    }

    /// JSON of the API.
    pub fn get(&self, path: &str) -> Value {
        let (status, body) = hold::http(self.port(), path, &self.token);
        serde_json::from_str(&body).unwrap_or_else(|e| panic!("{path}: {e}: {status} {body}"))
    }

    /// The jobs of a commit's newest run attempt, once it exists.
    pub fn jobs(&self, sha: &str) -> Vec<Value> {
        let runs = self.get("/api/v1/runs?limit=100");
        let run = runs["runs"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|run| run["commit"] == sha)
            .cloned();
        let Some(run) = run else { return Vec::new() };
        let detail = self.get(&format!("/api/v1/runs/{}", run["id"].as_str().expect("an id")));
        detail["attempts"]
            .as_array()
            .into_iter()
            .flatten()
            .max_by_key(|a| a["number"].as_u64())
            .map_or_else(Vec::new, |a| a["jobs"].as_array().cloned().unwrap_or_default())
    }

    /// Waits until a job of the commit is in this state.
    pub fn wait_job(&self, sha: &str, key: &str, state: &str) -> Value {
        self.until(&format!("job {key} of {sha} {state}"), || {
            self.jobs(sha)
                .into_iter()
                .find(|job| job["key"] == key && job["state"] == state)
        })
    }

    /// Looks again and again until something is so.
    pub fn until<T>(&self, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
        let started = Instant::now();
        loop {
            if let Some(found) = look() {
                return found;
            }
            assert!(
                started.elapsed() < deadline::GUEST,
                "never: {what}\n{}",
                self.daemon_log()
            );
            pause_after(started);
        }
    }

    /// The whole log of a job.
    pub fn log(&self, job: &str) -> String {
        let output = self.cli(&["logs", job]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Names what is left of machines: processes, directories, grants. Empty when nothing is.
    pub fn leftovers(&self) -> Vec<String> {
        let mut left = Vec::new();
        for folder in ["machines", "grants"] {
            let entries = fs::read_dir(self.data().join(folder)).into_iter().flatten().flatten();
            left.extend(
                entries
                    .map(|entry| entry.path().display().to_string())
                    .filter(|path| !path.ends_with(".lock")),
            );
        }
        let ours = self.dir.path().display().to_string();
        for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let cmdline = fs::read(process.path().join("cmdline")).unwrap_or_default();
            let cmdline = String::from_utf8_lossy(&cmdline).replace('\0', " ");
            if cmdline.contains(&ours)
                && (cmdline.contains("qemu") || cmdline.contains("helios-agent") || cmdline.contains(" relay "))
            {
                left.push(format!("process {}: {cmdline}", process.file_name().to_string_lossy()));
            }
        }
        left
    }

    /// Waits until nothing of any machine is left.
    pub fn wait_clean(&self) {
        let started = Instant::now();
        loop {
            let left = self.leftovers();
            if left.is_empty() {
                return;
            }
            assert!(
                started.elapsed() < deadline::GUEST,
                "left behind: {left:#?}\n{}",
                self.daemon_log()
            );
            pause();
        }
    }
}

impl Drop for Installation {
    fn drop(&mut self) {
        self.kill();
        // A failed test may leave machines running; they must not outlive it.
        for left in self.leftovers() {
            if let Some(pid) = left
                .strip_prefix("process ")
                .and_then(|l| l.split(':').next()?.parse::<i32>().ok())
            {
                nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).ok();
            }
        }
    }
}
