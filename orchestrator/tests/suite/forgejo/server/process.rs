//! The process of a real Forgejo: its configuration, its users, its beginning and its end.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU8, Ordering},
};

use nix::{sys::signal::Signal, unistd};

use super::{KEEPER, api::PASSWORD, deadline};
use crate::support::hold;

/// What fails when the program cannot be started; that `HELIOS_CI_FORGEJO` names one was seen before.
const SETPRIV: &str = "setpriv runs, which ends a Forgejo with its test (package util-linux)";

/// The name of this user, or its number where it has none, as in a container.
fn user() -> String {
    let uid = unistd::getuid();
    let user = unistd::User::from_uid(uid).expect("the list of users");
    user.map_or_else(|| uid.to_string(), |user| user.name)
}

/// A Forgejo with everything that it keeps in a folder of its own. It dies with its test.
pub struct Process {
    program: PathBuf,
    dir: tempfile::TempDir,
    address: SocketAddr,
    child: Option<Child>,
}

/// An address that nobody else takes before a Forgejo listens there: each has one of loopback's of its own, made of the
/// number of this process and of those that were started here.
fn own_address() -> SocketAddr {
    static STARTED: AtomicU8 = AtomicU8::new(0);
    let [.., high, low] = std::process::id().to_be_bytes();
    let ip = Ipv4Addr::new(127, high | 0x80, low, STARTED.fetch_add(1, Ordering::Relaxed) % 250 + 2);
    TcpListener::bind((ip, 0))
        .and_then(|listener| listener.local_addr())
        .unwrap_or_else(|e| panic!("a free port of {ip}, which Linux has without being asked: {e}"))
}

impl Process {
    /// One that is not started, with an empty database and its administrator; and the administrator's token.
    pub fn new(program: &Path) -> (Self, String) {
        let made = Self {
            program: program.to_owned(),
            dir: tempfile::Builder::new()
                .prefix("forgejo")
                .tempdir()
                .expect("a temporary directory"),
            address: own_address(),
            child: None,
        };
        fs::write(made.config(), made.configuration()).expect("its configuration");
        made.cli(&["migrate"]);
        let mail = format!("{KEEPER}@example.org");
        made.cli(&[
            "admin",
            "user",
            "create",
            "--admin",
            "--username",
            KEEPER,
            "--password",
            PASSWORD,
            "--email",
            &mail,
            "--must-change-password=false",
        ]);
        let token = made.cli(&[
            "admin",
            "user",
            "generate-access-token",
            "--username",
            KEEPER,
            "--token-name",
            "tests",
            "--scopes",
            "all",
            "--raw",
        ]);
        // Warnings come first.
        let token = token.lines().last().expect("a token").to_owned();
        (made, token)
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn config(&self) -> PathBuf {
        self.dir.path().join("app.ini")
    }

    /// What is not here is its default. Its queues lie in memory: on disk each event takes two to three seconds. It
    /// sends hooks to this machine, which it does not by itself, and waits for their answers as long as tests do.
    fn configuration(&self) -> String {
        format!(
            "RUN_USER = {user}
RUN_MODE = prod
I_AM_BEING_UNSAFE_RUNNING_AS_ROOT = true
WORK_PATH = {dir}
[server]
PROTOCOL = http
HTTP_ADDR = {ip}
HTTP_PORT = {port}
ROOT_URL = {url}/
DISABLE_SSH = true
OFFLINE_MODE = true
[database]
DB_TYPE = sqlite3
PATH = {dir}/forgejo.db
[repository]
ROOT = {dir}/repositories
DEFAULT_BRANCH = main
[security]
INSTALL_LOCK = true
SECRET_KEY = {secret}
PASSWORD_HASH_ALGO = pbkdf2_v1
[service]
DISABLE_REGISTRATION = true
[webhook]
ALLOWED_HOST_LIST = loopback
DELIVER_TIMEOUT = {timeout}
[queue]
TYPE = channel
[indexer]
ISSUE_INDEXER_TYPE = db
[actions]
ENABLED = false
[cron.update_checker]
ENABLED = false
[picture]
DISABLE_GRAVATAR = true
[log]
MODE = console
LEVEL = Warn
",
            user = user(),
            dir = self.dir.path().display(),
            ip = self.address.ip(),
            port = self.address.port(),
            url = self.url(),
            secret = helios_fakeforge::new_webhook_secret(),
            timeout = deadline::PROMPT.as_secs(),
        )
    }

    /// One command, with what all of them need.
    fn command(&self) -> Command {
        // The kernel ends it with the thread that started it, which is the test's: also a test that is killed leaves
        // nothing.
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL"])
            .arg(&self.program)
            .arg("--config")
            .arg(self.config())
            .arg("--work-path")
            .arg(self.dir.path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.dir.path())
            .env("USER", user())
            .current_dir(self.dir.path())
            .stdin(Stdio::null());
        command
    }

    /// Runs one of its commands; what it printed.
    fn cli(&self, args: &[&str]) -> String {
        // In files, as a pipe that nobody reads meanwhile may be full.
        let file = |name: &str| self.dir.path().join(name);
        let written = |name: &str| fs::File::create(file(name)).expect("a file");
        let read = |name: &str| fs::read_to_string(file(name)).expect("a file");
        let mut child = self
            .command()
            .args(args)
            .stdout(written("stdout"))
            .stderr(written("stderr"))
            .spawn()
            .expect(SETPRIV);
        let mut ended = None;
        hold::until(&format!("Forgejo's command {args:?} ends"), || {
            ended = child.try_wait().expect("its state");
            ended.is_some()
        });
        let succeeded = ended.is_some_and(|status| status.success());
        assert!(succeeded, "{args:?}: {}\n{}", read("stdout"), read("stderr"));
        read("stdout").trim().to_owned()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("forgejo.log")).unwrap_or_default()
    }

    /// Starts it and waits until it answers.
    pub fn up(&mut self) {
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.dir.path().join("forgejo.log"))
            .expect("its log");
        let child = self
            .command()
            .arg("web")
            .stdout(log.try_clone().expect("its log"))
            .stderr(log)
            .spawn()
            .expect(SETPRIV);
        self.child = Some(child);
        hold::until("Forgejo answers", || {
            let ended = self.child.as_mut().and_then(|c| c.try_wait().expect("its state"));
            assert!(ended.is_none(), "Forgejo ended with {ended:?}:\n{}", self.log());
            hold::http_at(self.address, "/api/healthz", "").0 == 200
        });
    }

    /// SIGTERM, and waits for its end.
    pub fn down(&mut self) {
        self.signal(Signal::SIGTERM);
        let mut child = self.child.take().expect("it runs");
        hold::until("Forgejo ends", || child.try_wait().expect("its state").is_some());
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("it runs");
        hold::signal(i32::try_from(child.id()).expect("a pid"), signal);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().ok();
            child.wait().expect("it is gone");
        }
    }
}
