//! A simulated host whose guests are real, and what tests ask of it.

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use helios_ci::{
    machine::{Endpoints, ListenAt, MachineSpec, Machines, Observed, Seed, zone},
    model::{ids::AttemptId, names::MachineName},
    secret::Secret,
};
use illumos_sim::state::Real;
use sha2::{Digest, Sha256};

use super::{
    deadline,
    simulated_host::{self, Room, host},
    support,
};

/// The name of this host's node, as in the installation that `support` makes.
const NODE: &str = "test-node";
/// The label of the only image.
pub const LABEL: &str = "tiny";
/// Where the golden disk lies, for the host that the others are copies of.
const DISK: &str = "HELIOS_CI_GOLDEN_DISK";
/// Where the template of the hosts is to be.
const TEMPLATE: &str = "HELIOS_CI_TEMPLATE";
/// A network, processes and mounts of its own: whatever a test leaves, even when it is killed, dies with it.
const NAMESPACES: &[&str] = &["--net", "--pid", "--fork", "--kill-child", "--mount-proc"];
/// Room for a job beside what the tiny guest has on its disk.
const DISK_MIB: u64 = 192;

/// Why there can be no real guests here.
fn hindrance() -> Option<String> {
    if support::guest().is_none() {
        return Some("the tiny guest is not built (`make guest`)".into());
    }
    let mut unshare = Command::new("unshare");
    if !nix::unistd::geteuid().is_root() {
        unshare.args(["--user", "--map-root-user"]);
    }
    let probe = "ip tuntap add dev t0 mode tap && nft list ruleset && command -v qemu-system-x86_64 setpriv";
    let tried = unshare
        .arg("--mount")
        .args(NAMESPACES)
        .args(["sh", "-ec", probe])
        .output();
    match tried {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(format!(
            "no namespace with taps and filters: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        )),
        Err(error) => Some(format!("unshare: {error}")),
    }
}

/// The tiny guest's disk as a raw one, just large enough: it is copied for every machine.
fn golden_disk(dir: &Path) -> PathBuf {
    let raw = dir.join("tiny.raw");
    let qcow2 = support::guest().expect("the tiny guest").join("disk.qcow2");
    let run = |program: &str, args: &[&std::ffi::OsStr]| {
        let output = Command::new(program)
            .args(args)
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .output();
        let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
        assert!(
            output.status.success(),
            "{program}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    };
    run(
        "qemu-img",
        &[
            "convert".as_ref(),
            "-O".as_ref(),
            "raw".as_ref(),
            qcow2.as_ref(),
            raw.as_ref(),
        ],
    );
    run("e2fsck", &["-fp".as_ref(), raw.as_ref()]);
    run("resize2fs", &[raw.as_ref(), format!("{DISK_MIB}M").as_ref()]);
    let file = fs::OpenOptions::new().write(true).open(&raw).expect("the disk");
    file.set_len(DISK_MIB << 20).expect("a smaller disk");
    raw
}

/// Runs ignored tests of this program, each in namespaces and on a host of its own, which has its datasets,
/// its filter rules and one golden disk.
pub fn run_inside(tests: &[&str]) {
    if let Some(why) = hindrance() {
        support::prerequisites::skip_unless_full(&why);
        return;
    }
    let dir = tempfile::tempdir().expect("a folder");
    let (template, disk) = (dir.path().join("template"), golden_disk(dir.path()));
    let env: &[(&str, &Path)] = &[(DISK, &disk), (TEMPLATE, &template)];
    let room = Room {
        namespaces: NAMESPACES,
        host: None,
        env,
    };
    simulated_host::run_in(
        &["guests::real_guests::a_host_is_set_up_and_given_a_golden_disk"],
        1,
        room,
    );
    // Each has up to two guests, whose emulators want a processor each.
    simulated_host::run_in(
        tests,
        2,
        Room {
            host: Some(&template),
            ..room
        },
    );
}

/// What the other tests begin with.
#[test]
#[ignore = "run inside a simulated host by zones_with_real_guests"]
fn a_host_is_set_up_and_given_a_golden_disk() {
    let node = NODE.parse().expect("a node");
    for act in zone::setup::missing(&node, &simulated_host::zone()).expect("a look") {
        zone::setup::perform(&act).unwrap_or_else(|error| panic!("{act}: {error:?}"));
    }
    let disk = PathBuf::from(std::env::var_os(DISK).expect("a disk"));
    let digest = Command::new("sha256sum").arg(&disk).output().expect("sha256sum");
    let digest = String::from_utf8_lossy(&digest.stdout)
        .split(' ')
        .next()
        .map(str::to_owned);
    let golden = zone::golden::Golden {
        node,
        root: simulated_host::zone().dataset,
    };
    let imported = golden.import(&disk, &LABEL.parse().expect("a label"), &digest.expect("a digest"));
    assert_eq!(imported.expect("an import").number, 1);
    simulated_host::copy(host().dir(), Path::new(&std::env::var_os(TEMPLATE).expect("a place")));
}

/// From here on guests and their network are real.
pub fn begin() {
    let guest = support::guest().expect("the tiny guest");
    let real = Real {
        kernel: guest.join("vmlinuz"),
        initrd: guest.join("initrd.img"),
        cmdline: "console=ttyS0 quiet panic=-1 no_timer_check".into(),
    };
    host().mutate(|host| host.state.real = Some(real)).expect("a network");
}

/// Runs a command of the host, which must succeed.
pub fn run(command: &str) -> String {
    let mut words = command.split(' ');
    let program = words.next().expect("a program");
    let output = Command::new(program)
        .args(words)
        .output()
        .unwrap_or_else(|error| panic!("{command}: {error}"));
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command}: {said}");
    said
}

/// How often a zone was booted on this host.
pub fn boots() -> usize {
    let trace = host().trace().expect("a trace");
    let boots = trace
        .iter()
        .filter(|line| line.argv.last().is_some_and(|word| word == "boot"));
    boots.count()
}

/// A back end on this host whose guests start this program as their agent.
pub fn machines(agent: &[u8]) -> Arc<dyn Machines> {
    let program = PathBuf::from(format!("/run/agent-{}", &hex::encode(Sha256::digest(agent))[..8]));
    fs::write(&program, agent).expect("an agent");
    let images = BTreeMap::from([(LABEL.parse().expect("a label"), simulated_host::image())]);
    zone::open(zone::Options::new(
        NODE.parse().expect("a node"),
        simulated_host::zone(),
        images,
        program,
    ))
}

pub fn spec(fingerprint: &str) -> MachineSpec {
    MachineSpec {
        name: MachineName::of(AttemptId::new()),
        node: NODE.parse().expect("a node"),
        image: LABEL.parse().expect("a label"),
        cpus: 1,
        memory_mib: 256,
        disk_gib: Some(1),
        seed: Seed {
            fingerprint: fingerprint.to_owned(),
            token: Secret::new("hjt_nobody_ever_made_this_token"),
            time_ms: helios_ci::clock::now_ms(),
        },
    }
}

/// The address of an endpoint on a slot, and its guest's.
pub fn slot(endpoints: &Endpoints) -> (SocketAddr, std::net::IpAddr) {
    match endpoints.agent {
        ListenAt::Slot { address, guest } => (address, guest),
        ref other => panic!("{other:?}"),
    }
}

/// All that a console has recorded.
pub async fn console(machines: &Arc<dyn Machines>, name: &MachineName) -> String {
    let (mut text, mut from) = (Vec::new(), 0);
    loop {
        let part = machines.console(name, from).await.expect("a console");
        if part.bytes.is_empty() {
            return String::from_utf8_lossy(&text).into_owned();
        }
        from = part.next;
        text.extend(part.bytes);
    }
}

/// Waits for words on a console.
pub async fn console_says(machines: &Arc<dyn Machines>, name: &MachineName, words: &str) -> String {
    let until = Instant::now() + deadline::GUEST;
    loop {
        let said = console(machines, name).await;
        if said.contains(words) {
            return said;
        }
        assert!(Instant::now() < until, "the console never said {words:?} but {said:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Waits until a machine runs no more.
pub async fn stopped(machines: &Arc<dyn Machines>, name: &MachineName) -> Observed {
    let stopped = tokio::time::timeout(deadline::GUEST, machines.wait_stopped(name)).await;
    stopped.expect("it stops").expect("a look")
}

/// Everything of machines that is left: of the model, of the kernel's network, and processes.
pub fn left() -> Vec<String> {
    let mut left = simulated_host::left();
    let links = run("ip -brief link");
    left.extend(
        links
            .lines()
            .filter(|line| line.contains("hci"))
            .map(|line| format!("kernel: {line}")),
    );
    let rules = run("nft list table bridge host");
    left.extend(
        rules
            .lines()
            .filter(|line| line.contains("hci"))
            .map(|line| format!("filter: {line}")),
    );
    left.extend(emulators().into_iter().map(|pid| format!("emulator {pid}")));
    left
}

/// The emulators that run in this namespace.
pub fn emulators() -> Vec<i32> {
    let processes = fs::read_dir("/proc").expect("processes").flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| {
        let cmdline = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        cmdline.starts_with(b"qemu-system") || cmdline.starts_with(b"setpriv")
    })
    .collect()
}

/// Waits until something is so.
pub async fn until(what: &str, mut so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !so() {
        assert!(started.elapsed() < deadline::GUEST, "never: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
