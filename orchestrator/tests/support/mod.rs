//! A whole installation on this machine: a local forge, a daemon, and what a person sees of both.
//! Shared by the end-to-end tests and the demo.

#![allow(dead_code, reason = "each program that includes this uses its own part")]
#![allow(clippy::disallowed_methods, reason = "tests start the daemon as a person would")]
#![allow(clippy::missing_panics_doc, reason = "tests")]

pub mod contract;
pub mod deadline;
pub mod hold;
pub mod installation;
pub mod peer;
pub mod port;
pub mod prerequisites;
pub mod spine;

use std::{
    fs,
    ops::{Deref, DerefMut},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

#[allow(unused_imports, reason = "each program that includes this uses its own part")]
pub use prerequisites::{guest, needs_guest};

use helios_fakeforge::{FakeForge, Kind, Options};

use self::installation::Installation;

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

/// A local forge, and a daemon that works for it.
pub struct World {
    installation: Installation,
    /// The forge.
    pub forge: FakeForge,
    /// The Forgejo repository `ada/engine`.
    pub repository: i64,
    /// The GitHub repository `octo/engine`.
    pub github: i64,
}

impl Deref for World {
    type Target = Installation;

    fn deref(&self) -> &Installation {
        &self.installation
    }
}

impl DerefMut for World {
    fn deref_mut(&mut self) -> &mut Installation {
        &mut self.installation
    }
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

/// The configuration's connections to both sides of the local forge.
fn connections(forge: &FakeForge, dir: &Path) -> String {
    format!(
        "connections:
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
",
        forge = forge.url(),
        api = forge.github_api_url(),
        app = forge.app_id(),
        dir = dir.display(),
    )
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
        let forge = FakeForge::start(Options {
            // The demo's forge is built without.
            schemas: helios_fakeforge::CHECKS_BODIES
                .then(|| prerequisites::conformance("openapi"))
                .flatten(),
            ..Options::default()
        })
        .await
        .expect("the forge starts");
        // A real one waits 5 s and sends nothing twice; on a busy machine that is no time.
        forge.set_delivery_timeout(deadline::PROMPT);
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
        let secrets = [
            ("hook", secret.as_str()),
            ("forgejo-token", &token),
            ("app.pem", forge.app_private_key()),
        ];
        let installation = Installation::stopped(machines, &secrets, |dir| connections(&forge, dir), extra);
        forge.add_hook(repository, &installation.hook_url("local"), &secret);
        forge.add_hook(github, &installation.hook_url("octo"), &secret);
        Self {
            installation,
            forge,
            repository,
            github,
        }
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
