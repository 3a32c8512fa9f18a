//! What the tests of hangs, cuts and crashes look at: machines' processes, logs while they grow, and
//! whether really nothing is left.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::{fs::FileTypeExt, net::UnixStream},
    path::{Path, PathBuf},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use super::{deadline, helios_ci, installation::Installation, pause};

/// A job that prints `line 1 of N` to `line N of N` with a pause after each.
pub fn counting(lines: usize, pause: &str) -> String {
    format!(
        "\
name: ci
on: push
jobs:
  count:
    steps:
      - name: Count
        run: |
          for i in $(seq 1 {lines}); do echo \"line $i of {lines}\"; sleep {pause}; done
"
    )
}

/// The lines of a counting job in its log.
pub fn counted(log: &str) -> Vec<&str> {
    log.lines().filter(|line| line.starts_with("line ")).collect()
}

/// Every line is there once, in order.
pub fn assert_counted(log: &str, lines: usize, what: &str) {
    let wanted: Vec<String> = (1..=lines).map(|i| format!("line {i} of {lines}")).collect();
    assert_eq!(counted(log), wanted, "{what}: gaps or repetitions");
}

/// Sends a signal to a process of a test.
pub fn signal(pid: i32, signal: Signal) {
    kill(Pid::from_raw(pid), signal).unwrap_or_else(|e| panic!("{signal} to {pid}: {e}"));
}

/// A number below `below`, the same for every run of a seed.
pub fn pick(seed: &mut u64, below: u64) -> u64 {
    // SplitMix64.
    *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *seed;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ (z >> 31)) % below
}

/// One GET: status and body. An unreachable daemon is status 0.
pub fn http(port: u16, path: &str, token: &str) -> (u16, String) {
    http_at(SocketAddr::from(([127, 0, 0, 1], port)), path, token)
}

/// As [`http`], of whoever listens at this address.
pub fn http_at(address: SocketAddr, path: &str, token: &str) -> (u16, String) {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(deadline::GUEST))?;
        let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\n\r\n");
        stream.write_all(request.as_bytes())?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    let answer = ask().unwrap_or_default();
    let status = answer
        .split(' ')
        .nth(1)
        .and_then(|s| s.parse().ok())
        .unwrap_or_default();
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
    (status, body.unwrap_or_default())
}

/// Gives QEMU's monitor a command, which must succeed.
pub fn tell(machine: &Path, command: &str) {
    let mut monitor = BufReader::new(UnixStream::connect(machine.join("qmp.sock")).expect("the monitor"));
    let mut line = String::new();
    monitor.read_line(&mut line).expect("a greeting");
    for command in ["{\"execute\": \"qmp_capabilities\"}", command] {
        monitor
            .get_mut()
            .write_all(format!("{command}\n").as_bytes())
            .expect("a command");
        loop {
            line.clear();
            assert!(monitor.read_line(&mut line).expect("an answer") > 0, "QEMU hung up");
            assert!(!line.contains("\"error\""), "{line}");
            if line.contains("\"return\"") {
                break;
            }
        }
    }
}

/// Larger than any golden disk.
const GROWN: u64 = 1 << 40;

/// Grows the disk of a guest, the one word that reaches a step past the agent and the network.
pub fn grow(machine: &Path) {
    tell(
        machine,
        &format!("{{\"execute\": \"block_resize\", \"arguments\": {{\"device\": \"disk0\", \"size\": {GROWN}}}}}"),
    );
}

/// The processes whose command line contains every one of these words, zombies left out.
pub fn processes(words: &[&str]) -> Vec<i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let found = entries.filter_map(|process| {
        let pid = process.file_name().to_str()?.parse().ok()?;
        let cmdline = fs::read(process.path().join("cmdline")).ok()?;
        let cmdline = String::from_utf8_lossy(&cmdline).replace('\0', " ");
        words.iter().all(|word| cmdline.contains(word)).then_some(pid)
    });
    found.collect()
}

/// Whether a process exists and is no zombie.
pub fn is_alive(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

/// The directories of the machines below a data directory that were started.
pub fn machines_in(data: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(data.join("machines")).into_iter().flatten().flatten();
    let mut started: Vec<PathBuf> = entries
        .map(|entry| entry.path())
        // One that is being removed has another name for a moment.
        .filter(|dir| {
            dir.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with("hci-"))
        })
        .filter(|dir| main_pid(dir).is_some())
        .collect();
    started.sort();
    started
}

/// The main process of a machine that was started.
pub fn main_pid(machine: &Path) -> Option<i32> {
    let run: Value = serde_json::from_slice(&fs::read(machine.join("run.json")).ok()?).ok()?;
    run["main"]["pid"].as_i64()?.try_into().ok()
}

impl Installation {
    /// Rewrites the configuration; the next start of the daemon reads it.
    pub fn reconfigure(&self, change: impl FnOnce(String) -> String) {
        let text = fs::read_to_string(self.config()).expect("the configuration");
        fs::write(self.config(), change(text)).expect("the configuration");
    }

    /// The daemon's process.
    pub fn pid(&self) -> i32 {
        let daemon = self.daemon.as_ref().expect("a daemon");
        i32::try_from(daemon.id()).expect("a pid")
    }

    /// A job with its attempts and steps.
    pub fn detail(&self, job: &str) -> Value {
        self.get(&format!("/api/v1/jobs/{job}"))
    }

    /// What is readable of a job's log now; empty while there is none.
    pub fn log_now(&self, job: &str) -> String {
        match http(self.port(), &format!("/api/v1/jobs/{job}/logs"), self.token()) {
            (200, log) => log,
            _ => String::new(),
        }
    }

    /// Waits until a counting job has printed this many lines.
    pub fn wait_counted(&self, job: &str, lines: usize) {
        self.until(&format!("{lines} lines of {job}"), || {
            (counted(&self.log_now(job)).len() >= lines).then_some(())
        });
    }

    /// The directory of the only machine that was started.
    pub fn machine(&self) -> PathBuf {
        self.until("one machine runs", || match machines_in(&self.data()).as_slice() {
            [dir] if main_pid(dir).is_some_and(is_alive) => Some(dir.clone()),
            _ => None,
        })
    }

    /// What `helios-ci show` says of a job, and its page.
    pub fn shown(&self, job: &str) -> [String; 2] {
        let show = self.cli(&["show", job]);
        assert!(show.status.success(), "{}", String::from_utf8_lossy(&show.stderr));
        let (status, page) = http(self.port(), &format!("/jobs/{job}"), self.token());
        assert_eq!(status, 200, "{page}");
        [String::from_utf8_lossy(&show.stdout).into_owned(), page]
    }

    /// What SQLite answers to a statement.
    pub fn text(&self, sql: &str) -> String {
        let output = std::process::Command::new("sqlite3")
            .arg("-readonly")
            .args(["-cmd", &format!(".timeout {}", deadline::PROMPT.as_millis())])
            .arg(self.data().join("helios-ci.db"))
            .arg(sql)
            .output()
            .expect("sqlite3 runs");
        assert!(
            output.status.success(),
            "{sql}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Whether SQLite would let somebody write within a second.
    pub fn is_database_free(&self) -> bool {
        let output = std::process::Command::new("sqlite3")
            .args(["-cmd", ".timeout 1000"])
            .arg(self.data().join("helios-ci.db"))
            .arg("BEGIN IMMEDIATE; ROLLBACK;")
            .output();
        output.expect("sqlite3 runs").status.success()
    }

    /// As [`Installation::text`], a whole number.
    pub fn number(&self, sql: &str) -> i64 {
        let text = self.text(sql);
        text.parse().unwrap_or_else(|e| panic!("{sql}: {e}: {text}"))
    }

    /// The number of rows that stand behind `FROM`.
    pub fn rows(&self, from: &str) -> i64 {
        self.number(&format!("SELECT COUNT(*) FROM {from}"))
    }

    /// Waits until nothing is left: no process, directory, grant or socket of any machine, no row of a
    /// machine that is not gone, no checkpoint, and no attempt whose token or session key would still
    /// be accepted.
    pub fn nothing_left(&self) {
        self.wait_clean();
        self.until("no rows of machines, checkpoints or tokens are left", || {
            let left = self.rows("machines WHERE state <> 'gone'")
                + self.rows("checkpoints")
                + self.rows("attempts WHERE state <> 'ended'");
            (left == 0).then_some(())
        });
        let mut sockets = Vec::new();
        walk(&self.data(), &mut |path, kind| {
            if kind.is_socket() {
                sockets.push(path.to_owned());
            }
        });
        assert!(sockets.is_empty(), "{sockets:?}");
        // What a daemon has just forked is the daemon's program, until it is another.
        self.until("no other process of the daemon's program is left", || {
            let ours = self.dir.path().display().to_string();
            let daemons = processes(&[&ours, " serve"]);
            let is_left = |pid: &i32| {
                let program = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
                !daemons.contains(pid) && program == helios_ci()
            };
            (!processes(&[&ours]).iter().any(is_left)).then_some(())
        });
    }
}

/// Every file below a directory, links not followed.
pub fn walk(dir: &Path, see: &mut impl FnMut(&Path, fs::FileType)) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let Ok(kind) = entry.file_type() else { continue };
        see(&entry.path(), kind);
        if kind.is_dir() {
            walk(&entry.path(), see);
        }
    }
}

/// Waits without a world, for a level of this machine.
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = std::time::Instant::now();
    while !is_so() {
        assert!(started.elapsed() < deadline::GUEST, "never: {what}");
        pause();
    }
}
