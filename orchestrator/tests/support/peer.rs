//! A second daemon that works on a world's database with a data directory of its own.

use std::{
    fs,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use nix::sys::signal::Signal;

use super::{helios_ci, hold, installation::Installation, port::Port};

/// The second daemon. It dies with the test.
pub struct Peer {
    dir: PathBuf,
    /// Where it listens.
    pub port: u16,
    /// So that it may come back there.
    _reserved: Port,
    child: Option<Child>,
}

impl Installation {
    /// A second daemon under this node name; not started yet.
    pub fn peer(&self, node: &str) -> Peer {
        let dir = self.dir.path().join("peer");
        fs::create_dir_all(&dir).expect("its directory");
        let reserved = Port::reserve();
        let port = reserved.number();
        let text = fs::read_to_string(self.config()).expect("the configuration");
        let own = text
            .lines()
            .map(|line| match line.split_once(": ").map(|(key, _)| key) {
                Some("node") => format!("node: {node}"),
                Some("data_dir") => format!("data_dir: {}/data", dir.display()),
                Some("listen") => format!("listen: 127.0.0.1:{port}"),
                _ => line.to_owned(),
            });
        let mut own: Vec<String> = own.collect();
        own.push(format!(
            "database: {{sqlite: {}}}\n",
            self.data().join("helios-ci.db").display()
        ));
        fs::write(dir.join("config.yaml"), own.join("\n")).expect("its configuration");
        Peer {
            dir,
            port,
            _reserved: reserved,
            child: None,
        }
    }
}

impl Peer {
    /// Its data directory.
    pub fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// What it wrote.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.join("daemon.log")).unwrap_or_default()
    }

    /// Starts it without waiting.
    pub fn launch(&mut self) {
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.dir.join("daemon.log"))
            .expect("its log");
        let child = Command::new(helios_ci())
            .arg("--config")
            .arg(self.dir.join("config.yaml"))
            .args(["serve", "--allow-unisolated"])
            .env("RUST_LOG", "info,helios_ci=debug")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("it starts");
        self.child = Some(child);
    }

    /// Starts it and waits until it is ready.
    pub fn up(&mut self) {
        self.launch();
        hold::until(&format!("the second daemon is ready\n{}", self.log()), || {
            hold::http(self.port, "/readyz", "").0 == 200
        });
    }

    /// Its exit code, once it has ended by itself.
    pub fn ended(&mut self) -> Option<i32> {
        let mut code = None;
        hold::until("the second daemon ends", || {
            let ended = self.child.as_mut().and_then(|c| c.try_wait().expect("its state"));
            code = ended.and_then(|status| status.code());
            ended.is_some()
        });
        self.child = None;
        code
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = self.child.as_ref().expect("it runs").id();
        hold::signal(i32::try_from(pid).expect("a pid"), signal);
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().ok();
            child.wait().expect("it is gone");
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.kill();
    }
}
