//! The contract suite of the Machine port on the process and the QEMU back ends, and on the former behind
//! machined; zones with real guests are given the same in `guests`. What is one back end's alone is here.

use std::{collections::BTreeMap, os::unix::fs::PermissionsExt, path::PathBuf, sync::Arc};

use helios_ci::{
    config::Image,
    machine::{
        Endpoints, ListenAt, MachineSpec, Machines, Observed, Seed,
        machined::{self, Callers},
        process,
        qemu::{self, Accel},
    },
    model::{ids::AttemptId, names::MachineName, size::Size},
    secret::Secret,
};

use crate::support::{
    self,
    contract::{self, AGENT, Bench as _, console_says, life, stopped, two_and_a_death},
    deadline,
};

/// One data directory on which adapters are opened, again and again, as by restarted daemons.
struct Bench {
    dir: tempfile::TempDir,
    tiny: Option<PathBuf>,
    /// Reach the back end through machined's socket.
    behind: bool,
    machined: tokio_util::sync::CancellationToken,
}

impl Bench {
    fn new(tiny: Option<PathBuf>, agent: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("hm").tempdir_in("/tmp").unwrap();
        support::write_program(&dir.path().join("agent"), agent);
        Self {
            dir,
            tiny,
            behind: false,
            machined: tokio_util::sync::CancellationToken::new(),
        }
    }

    fn behind_machined(mut self) -> Self {
        self.behind = true;
        self
    }

    async fn opened(&self) -> Arc<dyn Machines> {
        let machines = self.local();
        if !self.behind {
            return machines;
        }
        static SOCKETS: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        let number = SOCKETS.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let socket = self.dir.path().join(format!("m{number}.sock"));
        let node: helios_ci::model::names::NodeName = "n1".parse().unwrap();
        tokio::spawn({
            let (node, socket, stop) = (node.clone(), socket.clone(), self.machined.clone());
            async move { machined::serve(machines, node, &socket, Callers { user: None }, stop, deadline::GUEST).await }
        });
        machined::connect(&socket, &node).await.unwrap()
    }

    fn local(&self) -> Arc<dyn Machines> {
        let (node, data_dir) = ("n1".parse().unwrap(), self.dir.path().to_owned());
        let agent = data_dir.join("agent");
        let Some(tiny) = &self.tiny else {
            return process::open(process::Options { node, data_dir, agent }).unwrap();
        };
        let size = Size {
            cpus: 1,
            memory_mib: 256,
            disk_gib: None,
        };
        let image = Image {
            disk: Some(tiny.join("disk.qcow2")),
            kind: helios_ci::config::GuestKind::LinuxUefi,
            attributes: std::collections::BTreeMap::new(),
            sha256: None,
            kernel: Some(tiny.join("vmlinuz")),
            initrd: Some(tiny.join("initrd.img")),
            cmdline: None,
            size,
            boot_timeout_s: deadline::GUEST.as_secs(),
        };
        qemu::open(qemu::Options {
            node,
            data_dir,
            images: BTreeMap::from([("tiny".parse().unwrap(), image)]),
            agent,
            helios_ci: env!("CARGO_BIN_EXE_helios-ci").into(),
            accel: Accel::Tcg,
        })
        .unwrap()
    }

    fn machine_dir(&self, name: &MachineName) -> PathBuf {
        self.dir.path().join("machines").join(name.as_str())
    }
}

impl contract::Bench for Bench {
    async fn open(&self) -> Arc<dyn Machines> {
        self.opened().await
    }

    fn spec(&self) -> MachineSpec {
        MachineSpec {
            name: MachineName::of(AttemptId::new()),
            node: "n1".parse().unwrap(),
            image: "tiny".parse().unwrap(),
            cpus: 1,
            memory_mib: 256,
            disk_gib: Some(2),
            seed: Seed {
                fingerprint: "ab".repeat(32),
                token: Secret::new("t0ken"),
                time_ms: 1,
            },
        }
    }

    fn main_pid(&self, name: &MachineName) -> i32 {
        let run = std::fs::read(self.machine_dir(name).join("run.json")).unwrap();
        let run: serde_json::Value = serde_json::from_slice(&run).unwrap();
        i32::try_from(run["main"]["pid"].as_i64().unwrap()).unwrap()
    }

    /// The sockets lie in the machine's own directory.
    fn assert_private(&self, endpoints: &Endpoints) {
        let ListenAt::Unix(socket) = &endpoints.agent else {
            panic!("{endpoints:?}")
        };
        let mode = std::fs::metadata(socket.parent().unwrap())
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o700);
    }

    /// It is found again by its marker.
    fn forget_start(&self, name: &MachineName) {
        std::fs::remove_file(self.machine_dir(name).join("run.json")).unwrap();
    }

    fn remains(&self, name: &MachineName) -> Vec<String> {
        let dir = self.machine_dir(name);
        dir.exists().then(|| dir.display().to_string()).into_iter().collect()
    }
}

/// No process of the bench outlives a failed test.
impl Drop for Bench {
    fn drop(&mut self) {
        self.machined.cancel();
        let marker = format!("HELIOS_CI_MACHINE={}/", self.dir.path().display());
        for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            let environ = std::fs::read(entry.path().join("environ")).unwrap_or_default();
            let ours = environ
                .split(|&byte| byte == 0)
                .any(|entry| entry.starts_with(marker.as_bytes()));
            if let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok())
                && ours
            {
                let pid = nix::unistd::Pid::from_raw(pid);
                let _gone = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
            }
        }
    }
}

/// What a crash leaves half-made or half-removed is listed and goes; what is not ours stays.
async fn leftovers_and_look_alikes(bench: &Bench) {
    let (machines, root) = (bench.open().await, bench.dir.path().join("machines"));
    let (made, gone, foreign, other) = (bench.spec(), bench.spec(), bench.spec(), bench.spec());
    for spec in [&gone, &other] {
        machines.prepare(spec).await.unwrap();
    }
    std::fs::create_dir(root.join(format!(".new-{}", made.name))).unwrap();
    std::fs::rename(bench.machine_dir(&gone.name), root.join(format!(".gone-{}", gone.name))).unwrap();
    // Look-alikes: no proof, another node's proof, another kind of name.
    std::fs::create_dir(bench.machine_dir(&foreign.name)).unwrap();
    let proof = bench.machine_dir(&other.name).join("spec.json");
    let text = std::fs::read_to_string(&proof).unwrap();
    std::fs::write(&proof, text.replace("\"node\":\"n1\"", "\"node\":\"n2\"")).unwrap();
    std::fs::create_dir(root.join("hci-precious")).unwrap();
    let listed = machines.list().await.unwrap();
    let mut listed: Vec<_> = listed.into_iter().map(|owned| owned.name).collect();
    listed.sort();
    let mut expected = vec![made.name.clone(), gone.name.clone()];
    expected.sort();
    assert_eq!(listed, expected);
    for name in &listed {
        machines.destroy(name).await.unwrap();
    }
    assert_eq!(machines.list().await.unwrap(), []);
    for spec in [&foreign, &other] {
        let error = machines.destroy(&spec.name).await.unwrap_err();
        assert!(error.reason.contains("not ours") && !error.retryable, "{error}");
        machines.prepare(spec).await.unwrap_err();
        assert_eq!(machines.observe(&spec.name).await.unwrap(), Observed::Absent);
        assert!(bench.machine_dir(&spec.name).exists());
    }
    assert!(root.join("hci-precious").exists());
    // A name whose earlier life was being removed can be prepared.
    std::fs::create_dir(root.join(format!(".gone-{}", gone.name))).unwrap();
    machines.prepare(&gone).await.unwrap();
    machines.destroy(&gone.name).await.unwrap();
}

macro_rules! contract {
    ($($case:ident)*) => {
        mod process_machines {
            $(#[tokio::test] async fn $case() {
                super::$case(&super::Bench::new(None, super::AGENT)).await;
            })*
        }
        mod process_machines_behind_machined {
            $(#[tokio::test] async fn $case() {
                super::$case(&super::Bench::new(None, super::AGENT).behind_machined()).await;
            })*
        }
        mod qemu_machines {
            $(#[tokio::test] async fn $case() {
                if let Some(tiny) = crate::support::needs_guest() {
                    super::$case(&super::Bench::new(Some(tiny), super::AGENT)).await;
                }
            })*
        }
    };
}

contract!(life two_and_a_death leftovers_and_look_alikes);

/// The forward carries bytes both ways to the socket beside the machine, nothing else answers, and
/// the machine powers off when its agent ends.
#[tokio::test]
async fn a_guest_reaches_its_node_and_nothing_else_and_dies_with_its_agent() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let Some(tiny) = support::needs_guest() else { return };
    // A listener of the host, which a guest would reach as 10.0.2.2 without `restrict=on`.
    let host = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = host.local_addr().unwrap().port();
    let agent = format!(
        "#!/bin/sh\necho hello from the guest | nc -w 20 10.0.2.100 9417\n\
         nc -w 2 10.0.2.2 {port} </dev/null && echo REACHED\nls /sys/fs/cgroup/cgroup.procs\n"
    );
    let bench = Bench::new(Some(tiny), &agent);
    let (machines, spec) = (bench.open().await, bench.spec());
    let endpoints = machines.prepare(&spec).await.unwrap();
    let ListenAt::Unix(socket) = endpoints.agent else {
        panic!("{endpoints:?}")
    };
    let listener = tokio::net::UnixListener::bind(socket).unwrap();
    machines.start(&spec.name).await.unwrap();
    let call = tokio::time::timeout(deadline::GUEST, listener.accept()).await;
    let Ok(Ok((mut stream, _))) = call else {
        let console = console_says(&machines, &spec.name, "").await;
        let log = std::fs::read_to_string(bench.machine_dir(&spec.name).join("qemu.log"));
        panic!("the guest never called; its console says {console:?}, QEMU {log:?}");
    };
    let mut said = [0; 21];
    stream.read_exact(&mut said).await.unwrap();
    assert_eq!(&said, b"hello from the guest\n");
    // What `-sandbox` must have left: a filter, and no way to new privileges.
    let status = std::fs::read_to_string(format!("/proc/{}/status", bench.main_pid(&spec.name))).unwrap();
    for line in ["NoNewPrivs:\t1", "Seccomp:\t2"] {
        assert!(status.contains(line), "{line} is not in {status}");
    }
    stream.write_all(b"answer from the node\n").await.unwrap();
    drop(stream);
    let seen = stopped(&machines, &spec.name).await;
    assert!(matches!(seen, Observed::Stopped(_)), "{seen:?}");
    let console = console_says(&machines, &spec.name, "the agent ended with status 0").await;
    assert!(
        console.contains("answer from the node") && !console.contains("REACHED"),
        "{console}"
    );
    assert!(console.contains("/sys/fs/cgroup/cgroup.procs"), "{console}");
    machines.destroy(&spec.name).await.unwrap();
}

/// The power button reaches the guest: it goes by itself, long before its power would be taken.
#[tokio::test]
async fn a_guest_that_is_asked_to_stop_goes_by_itself() {
    let Some(tiny) = support::needs_guest() else { return };
    let bench = Bench::new(Some(tiny), AGENT);
    let (machines, spec) = (bench.open().await, bench.spec());
    machines.prepare(&spec).await.unwrap();
    machines.start(&spec.name).await.unwrap();
    console_says(&machines, &spec.name, "agent --seed").await;
    let stopping = machines.stop(&spec.name, 2 * deadline::GUEST);
    tokio::time::timeout(deadline::GUEST, stopping)
        .await
        .expect("it goes")
        .unwrap();
    console_says(&machines, &spec.name, "Power down").await;
    machines.destroy(&spec.name).await.unwrap();
}

/// It travels on the seed disk of every machine.
#[test]
fn the_agent_is_small() {
    let Some(agent) = std::env::var_os("HELIOS_CI_AGENT") else {
        support::prerequisites::skip("HELIOS_CI_AGENT names no agent");
        return;
    };
    let size = std::fs::metadata(agent).expect("the agent").len();
    assert!(size <= 3_000_000, "{size} bytes");
}
