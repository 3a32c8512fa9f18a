//! A whole installation on this machine: a local forge, a daemon, and what a person sees of both.
//! Shared by the end-to-end tests and the demo.

#![allow(dead_code, reason = "each program that includes this uses its own part")]
#![allow(clippy::disallowed_methods, reason = "tests start the daemon as a person would")]
#![allow(clippy::missing_panics_doc, reason = "tests")]

pub mod contract;
pub mod deadline;
pub mod hold;
pub mod peer;
pub mod prerequisites;
pub mod spine;

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

#[allow(unused_imports, reason = "each program that includes this uses its own part")]
pub use prerequisites::{guest, needs_guest};

use helios_fakeforge::{FakeForge, Kind, Options};
use serde_json::Value;

/// What `image verify --boot` says of a disk that is well.
pub const WELL: [&str; 6] = [
    "ok       hello: its agent spoke after ",
    "ok       network: it fetched a commit from its node",
    "ok       clock: ",
    "ok       growth: its root filesystem has ",
    "ok       shutdown: it turned itself off within ",
    "tiny: ready for jobs: ",
];

/// Which machines the daemon makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Machines {
    /// Real guests.
    Qemu,
    /// The real agent as a process.
    Process,
    /// Zones of an illumos host; its image was imported.
    Zone,
}

/// A forge, a daemon's files, and the daemon.
pub struct World {
    /// Everything lies below it.
    pub dir: tempfile::TempDir,
    /// The forge.
    pub forge: FakeForge,
    /// The Forgejo repository `ada/engine`.
    pub repository: i64,
    /// The GitHub repository `octo/engine`.
    pub github: i64,
    machines: Machines,
    port: u16,
    token: String,
    daemon: Option<Child>,
    /// More lines of configuration.
    extra: String,
}

/// The agent's binary: `make` says where it is; without it the one of this build is used.
pub fn agent() -> PathBuf {
    std::env::var_os("HELIOS_CI_AGENT").map_or_else(|| beside("helios-agent"), PathBuf::from)
}

fn beside(name: &str) -> PathBuf {
    let mut dir = std::env::current_exe().expect("this program's file");
    while dir.pop() {
        if dir.join(name).is_file() {
            return dir.join(name);
        }
    }
    panic!("{name} is not built; run `cargo build --workspace` first")
}

/// The daemon's binary.
pub fn helios_ci() -> PathBuf {
    beside("helios-ci")
}

impl World {
    /// A forge with two repositories whose hooks lead to a daemon that is running.
    pub async fn start(machines: Machines) -> Self {
        Self::with(machines, "").await
    }

    /// As [`World::start`], with more lines of configuration.
    pub async fn with(machines: Machines, extra: &str) -> Self {
        let mut world = Self::stopped(machines, extra).await;
        world.up();
        world
    }

    /// As [`World::with`], with the daemon not started yet.
    pub async fn stopped(machines: Machines, extra: &str) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("hci")
            .tempdir()
            .expect("a temporary directory");
        let forge = FakeForge::start(Options {
            // The demo's forge is built without.
            schemas: helios_fakeforge::CHECKS_BODIES
                .then(|| prerequisites::conformance("openapi"))
                .flatten(),
            ..Options::default()
        })
        .await
        .expect("the forge starts");
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|l| l.local_addr())
            .expect("a free port")
            .port();
        let repository = forge
            .create_repository(Kind::Forgejo, "ada/engine", false)
            .await
            .expect("a repository");
        let github = forge
            .create_repository(Kind::Github, "octo/engine", true)
            .await
            .expect("a repository");
        let secret = helios_fakeforge::new_webhook_secret();
        let token = forge.create_token("helios-ci", true);
        for (name, content) in [
            ("hook", secret.as_str()),
            ("forgejo-token", &token),
            ("app.pem", forge.app_private_key()),
        ] {
            helios_fakeforge::write_private(&dir.path().join(name), content).expect("a secret's file");
        }
        forge.add_hook(repository, &format!("http://127.0.0.1:{port}/hooks/local"), &secret);
        forge.add_hook(github, &format!("http://127.0.0.1:{port}/hooks/octo"), &secret);
        let mut world = Self {
            dir,
            forge,
            repository,
            github,
            machines,
            port,
            token: String::new(),
            daemon: None,
            extra: extra.to_owned(),
        };
        world.write_config();
        let made = world.cli(&["token", "create", "tests"]);
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        world.token = String::from_utf8_lossy(&made.stdout).trim().to_owned();
        world
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
        format!("http://127.0.0.1:{}", self.port)
    }

    /// A token of a site admin.
    pub fn token(&self) -> &str {
        &self.token
    }

    fn write_config(&self) {
        let dir = self.dir.path().display();
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
data_dir: {dir}/data
listen: 127.0.0.1:{port}
backend: {backend}
agent: {agent}
connections:
  local:
    kind: forgejo
    url: {forge}
    token: file:{dir}/forgejo-token
    webhook_secrets: [file:{dir}/hook]
    public: [ada/engine]
    allow_private: true
  octo:
    kind: github
    url: {forge}
    api_url: {api}
    app_id: {app}
    private_key: file:{dir}/app.pem
    webhook_secrets: [file:{dir}/hook]
    allow_private: true
images:
  tiny:
    {image}
    size: {{cpus: 1, memory_mib: 512}}
    boot_timeout_s: {boot_timeout_s}
aliases:
  ubuntu-latest: tiny
default_label: tiny
{extra}",
            port = self.port,
            agent = agent().display(),
            forge = self.forge.url(),
            api = self.forge.github_api_url(),
            app = self.forge.app_id(),
            boot_timeout_s = deadline::GUEST.as_secs(),
            extra = self.extra,
        );
        fs::write(self.config(), text).expect("the configuration");
    }

    /// Starts the daemon and waits until it is ready.
    pub fn up(&mut self) {
        self.up_with(&[]);
    }

    /// As [`World::up`], with environment of its own (fail points).
    pub fn up_with(&mut self, env: &[(&str, &str)]) {
        self.launch(env);
        self.ready();
    }

    /// Starts the daemon without waiting.
    pub fn launch(&mut self, env: &[(&str, &str)]) {
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.dir.path().join("daemon.log"))
            .expect("the log");
        let mut command = Command::new(helios_ci());
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
        let Ok(mut stream) = std::net::TcpStream::connect(("127.0.0.1", self.port)) else {
            return false;
        };
        let request = format!(
            "GET /readyz HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nConnection: close\r\n\r\n",
            self.port
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
        let (status, body) = hold::http(self.port, path, &self.token);
        serde_json::from_str(&body).unwrap_or_else(|e| panic!("{path}: {e}: {status} {body}"))
    }

    /// Commits a workflow file to the Forgejo repository and pushes it; the commit's id.
    pub async fn push(&self, workflow: &str) -> String {
        self.push_to(self.repository, ".forgejo/workflows/ci.yml", workflow)
            .await
    }

    /// As [`World::push`], for any repository and file.
    pub async fn push_to(&self, repository: i64, path: &str, workflow: &str) -> String {
        let readme = format!("pushed at {:?}\n", Instant::now());
        let files = [
            (path, workflow.as_bytes().to_vec(), 0o644),
            ("README", readme.into_bytes(), 0o644),
        ];
        self.forge
            .push(repository, "main", &files, "Change the engine")
            .await
            .expect("a push")
    }

    /// Waits until the aggregate of a commit has this word at the forge.
    pub async fn wait(&self, sha: &str, word: &str) {
        if let Err(error) = self.forge.wait_for_word(sha, "helios-ci", word, deadline::GUEST).await {
            panic!("{error}\n{}", self.daemon_log());
        }
    }

    /// The words a context went through, without repetitions.
    pub fn words(&self, sha: &str, context: &str) -> Vec<String> {
        let mut words = self.forge.state().words(sha, context);
        words.dedup();
        words
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

impl Drop for World {
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

/// Between two looks at a level; never what a test waits for.
pub fn pause() {
    std::thread::sleep(Duration::from_millis(25));
}

/// The same, longer for what takes longer: each look costs the daemon work that other tests could do.
fn pause_after(started: Instant) {
    let part = started.elapsed() / 20;
    std::thread::sleep(part.clamp(Duration::from_millis(25), Duration::from_millis(100)));
}

/// Writes a program that this process is to start. Another process writes it: what a child that a test beside this one
/// forks meanwhile holds open for writing cannot be run.
pub fn write_program(path: &Path, text: &str) {
    let mut shell = Command::new("sh")
        .args(["-ec", "cat >\"$1\"; chmod 755 \"$1\"", "sh"])
        .arg(path)
        .stdin(Stdio::piped())
        .spawn()
        .expect("a shell");
    let mut input = shell.stdin.take().expect("its input");
    std::io::Write::write_all(&mut input, text.as_bytes()).expect("a program");
    drop(input);
    assert!(shell.wait().expect("the shell ends").success(), "{}", path.display());
}

/// Whether files of the daemon are for its user alone.
pub fn is_private(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|m| m.permissions().mode() & 0o077 == 0)
}
