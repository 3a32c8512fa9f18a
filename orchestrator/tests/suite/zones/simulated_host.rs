//! A simulated host for each test, and what tests ask of it.

#![allow(
    clippy::disallowed_methods,
    reason = "programs and a namespace are started as a host would"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use helios_ci::{
    config::{Image, Zone},
    machine::{MachineSpec, Machines, Seed, zone},
    model::{ids::AttemptId, illumos::network::Range, names::MachineName},
    secret::Secret,
};
use illumos_sim::{
    Sim,
    faults::{Action, Fault},
};
use sha2::{Digest, Sha256};

use super::deadline;

/// Where the inner tests find their host.
const STATE: &str = "HELIOS_CI_SIMULATED_HOST";

/// What a test is run in.
#[derive(Debug, Clone, Copy, Default)]
pub struct Room<'a> {
    /// Namespaces of its own beside that of mounts, as unshare(1) calls them.
    pub namespaces: &'a [&'a str],
    /// A host to start from; an empty one without.
    pub host: Option<&'a Path>,
    /// Its memory of the outside: names and values.
    pub env: &'a [(&'a str, &'a Path)],
}

/// Runs ignored tests of this program, each in a namespace and on a host of its own. The programs that all of them
/// ran together.
pub fn run_inside(tests: &[&str]) -> BTreeSet<String> {
    // More at a time than there are processors: most of a life is waiting.
    run_in(tests, 5, Room::default())
}

/// The same in rooms of this kind, so many at a time.
pub fn run_in(tests: &[&str], at_once: usize, room: Room<'_>) -> BTreeSet<String> {
    let me = std::env::current_exe().expect("this program");
    let built = |name: &str| {
        let path = me
            .parent()
            .and_then(Path::parent)
            .expect("a target directory")
            .join(name);
        assert!(path.exists(), "{} is missing: cargo build --workspace", path.display());
        path
    };
    let (sim, raw_disks) = (built("illumos-sim"), built("libillumos_rawdisk.so"));
    let (next, failed, ran) = (AtomicUsize::new(0), Mutex::new(Vec::new()), Mutex::new(BTreeSet::new()));
    std::thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                while let Some(test) = tests.get(next.fetch_add(1, Ordering::SeqCst)) {
                    let begun = Instant::now();
                    match inside(&me, &sim, &raw_disks, test, room) {
                        Ok(programs) => ran.lock().expect("a set").extend(programs),
                        Err(said) => failed.lock().expect("a list").push(format!("== {test}\n{said}")),
                    }
                    println!("{test}: {:.1} s", begun.elapsed().as_secs_f64());
                }
            });
        }
    });
    let failed = failed.into_inner().expect("a list");
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    ran.into_inner().expect("a set")
}

/// A copy of a host; holes stay holes.
pub fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp")
        .args(["-a", "--sparse=always"])
        .args([from, to])
        .status();
    assert!(copied.is_ok_and(|status| status.success()), "cp {}", from.display());
}

fn inside(me: &Path, sim: &Path, raw_disks: &Path, test: &str, room: Room<'_>) -> Result<Vec<String>, String> {
    let dir = tempfile::tempdir().expect("a folder");
    let (state, work) = (dir.path().join("host"), dir.path().join("work"));
    match room.host {
        Some(host) => copy(host, &state),
        None => drop(Sim::create(&state).expect("a host")),
    }
    fs::create_dir(&work).expect("a folder");
    let mut unshare = Command::new("unshare");
    unshare.arg("--mount").args(room.namespaces);
    if !nix::unistd::geteuid().is_root() {
        unshare.args(["--user", "--map-root-user"]);
    }
    let output = unshare
        .args([
            "sh",
            concat!(env!("CARGO_MANIFEST_DIR"), "/tests/suite/zones/namespace.sh"),
        ])
        .args([sim, &state.canonicalize().expect("a path"), &work])
        .arg(me)
        .args([test, "--exact", "--ignored", "--nocapture"])
        .env(STATE, &state)
        // Of this program and of helios-ci: the host's commands are given no environment.
        .env("LD_PRELOAD", raw_disks)
        .envs(room.env.iter().copied())
        .output()
        .expect("unshare, of util-linux");
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    if output.status.success() && said.contains("1 passed") {
        let trace = Sim::open(&state).and_then(|sim| sim.trace()).expect("a trace");
        Ok(trace.into_iter().map(|line| line.argv[0].clone()).collect())
    } else {
        Err(said)
    }
}

/// The host of this test.
pub fn host() -> Sim {
    Sim::open(Path::new(
        &std::env::var(STATE).expect("run by zones_on_a_simulated_host"),
    ))
    .expect("a host")
}

pub fn zone() -> Zone {
    Zone {
        dataset: "rpool/hci".parse().expect("a dataset"),
        path: "/mnt/hci".parse().expect("a path"),
        network: Range::default(),
        port: 9417,
        bandwidth: "1G".parse().expect("a bandwidth"),
        quota_gib: None,
        max_vcpus: 32,
    }
}

/// A back end on this host, as a freshly started machined would have it.
pub fn machines() -> Arc<dyn Machines> {
    scaled_machines(zone::TimeoutScale::default())
}

/// A golden disk that is a volume, with nothing of its own.
pub fn image() -> Image {
    Image {
        boot_timeout_s: deadline::GUEST.as_secs(),
        ..Image::default()
    }
}

/// One with its time limits at this scale.
pub fn scaled_machines(timeout_scale: zone::TimeoutScale) -> Arc<dyn Machines> {
    let agent = PathBuf::from("/run/agent");
    fs::write(&agent, b"agent").expect("an agent");
    zone::open(zone::Options {
        timeout_scale,
        ..zone::Options::new(
            "n1".parse().expect("a node"),
            zone(),
            BTreeMap::from([("debian".parse().expect("a label"), image())]),
            agent,
        )
    })
}

/// Everything that a machine could leave or an operation could hurt, by what it is: the model but for its counters, and
/// every file of zones, mountpoints and records.
pub fn picture() -> BTreeMap<String, String> {
    let state = host().state().expect("a state");
    let mut picture = BTreeMap::new();
    for (name, dataset) in &state.datasets {
        picture.insert(format!("dataset {name}"), format!("{dataset:?}"));
    }
    for (name, zone) in &state.zones {
        picture.insert(format!("zone {name}"), format!("{zone:?}"));
    }
    for (name, link) in &state.links {
        picture.insert(format!("link {name}"), format!("{link:?}"));
    }
    for (name, interface) in &state.interfaces {
        picture.insert(format!("interface {name}"), format!("{interface:?}"));
    }
    picture.insert(
        "others".to_owned(),
        format!("{:?} {:?} {:?}", state.vms, state.filter, state.services),
    );
    for dir in [
        "/etc/zones",
        "/etc/ipf",
        "/mnt",
        "/run/helios-ci",
        "/dev/vmm",
        "/dev/zvol",
    ] {
        files_below(Path::new(dir), &mut picture);
    }
    picture
}

fn files_below(dir: &Path, picture: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        // What a killed zonecfg leaves beside its files: `zonecfg.XXXXXX` on a real host, and harmless there.
        if entry.file_name().to_string_lossy().starts_with(".tmp") {
            continue;
        }
        let Ok(meta) = entry.metadata() else { continue };
        if meta.is_dir() {
            // An empty one of ours is no trace: whoever comes next uses it.
            files_below(&path, picture);
        } else {
            let content = (meta.is_file() && meta.len() < 16_384).then(|| fs::read(&path).unwrap_or_default());
            let text = content.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
            picture.insert(
                path.display().to_string(),
                text.unwrap_or_else(|| meta.len().to_string()),
            );
        }
    }
}

/// What is otherwise than it was, in words.
pub fn changed(before: &BTreeMap<String, String>) -> Vec<String> {
    let now = picture();
    let new = now.iter().filter(|(name, _)| !before.contains_key(*name));
    let mut changed: Vec<String> = new.map(|(name, value)| format!("new: {name}: {value}")).collect();
    for (name, was) in before {
        match now.get(name) {
            Some(is) if is == was => {}
            Some(is) => changed.push(format!("{name} was {was} and is {is}")),
            None => changed.push(format!("gone: {name}")),
        }
    }
    changed
}

/// Runs a program of the host, which must succeed.
pub fn run(program: &str, args: &[&str]) -> String {
    match host().run(program, args).expect("a host") {
        illumos_sim::sim::Ended::Exit(out) if out.code == 0 => out.stdout,
        other => panic!("{program} {args:?}: {other:?}"),
    }
}

/// Runs a program of the host, which must fail; what it says.
pub fn no(program: &str, args: &[&str]) -> String {
    match host().run(program, args).expect("a host") {
        illumos_sim::sim::Ended::Exit(out) if out.code != 0 => out.stderr,
        other => panic!("{program} {args:?}: {other:?}"),
    }
}

/// What goes wrong from now on, and nothing else.
pub fn faults(calls: Vec<Fault>) {
    host().mutate(|host| host.faults.calls = calls).expect("a host");
}

/// A fault of the `nth` call of a program with these words.
pub fn fault(program: &str, args: &[&str], nth: u32, action: Action) -> Fault {
    Fault {
        program: program.to_owned(),
        args: args.iter().map(|word| (*word).to_owned()).collect(),
        nth,
        times: 1,
        action,
        seen: 0,
    }
}

pub fn spec() -> MachineSpec {
    MachineSpec {
        name: MachineName::of(AttemptId::new()),
        node: "n1".parse().expect("a node"),
        image: "debian".parse().expect("a label"),
        cpus: 2,
        memory_mib: 1024,
        disk_gib: Some(1),
        seed: Seed {
            fingerprint: "ab".repeat(32),
            token: Secret::new("hjt_of_a_machine"),
            time_ms: 0,
        },
    }
}

pub fn golden() -> zone::golden::Golden {
    zone::golden::Golden {
        node: "n1".parse().expect("a node"),
        root: zone().dataset,
    }
}

/// Sets the host up and gives it one image.
pub fn prepare() {
    let node = "n1".parse().expect("a node");
    for act in zone::setup::missing(&node, &zone()).expect("a look") {
        zone::setup::perform(&act).unwrap_or_else(|error| panic!("{act}: {error:?}"));
    }
    import(b"a golden disk");
}

/// Imports a small disk; its version.
pub fn import(content: &[u8]) -> u32 {
    let file = PathBuf::from("/run/disk.raw");
    fs::write(&file, content).expect("a disk");
    let sha256 = hex::encode(Sha256::digest(content));
    let imported = golden().import(&file, &"debian".parse().expect("a label"), &sha256);
    imported.expect("an import").number
}

/// Everything of machines that the host still has, in words.
pub fn left() -> Vec<String> {
    let sim = host();
    let state = sim.state().expect("a state");
    let mut left = Vec::new();
    let machine = |name: &str| name.contains("/machines/") || name.contains("/zones/");
    left.extend(state.datasets.keys().filter(|name| machine(name)).cloned());
    left.extend(state.zones.keys().map(|name| format!("zone {name} in the kernel")));
    left.extend(
        state
            .links
            .keys()
            .filter(|name| name.starts_with("hci"))
            .map(|name| format!("link {name}")),
    );
    left.extend(
        state
            .interfaces
            .keys()
            .filter(|name| name.starts_with("hci"))
            .map(|name| format!("interface {name}")),
    );
    left.extend(state.vms.iter().map(|name| format!("virtual machine {name}")));
    let index = fs::read_to_string(sim.root().join("etc/zones/index")).expect("an index");
    left.extend(
        index
            .lines()
            .filter(|line| line.starts_with("hci-"))
            .map(|line| format!("index: {line}")),
    );
    for dir in [
        "/etc/zones",
        "/mnt/hci",
        "/run/helios-ci",
        "/run/helios-ci/machines",
        "/run/helios-ci/console",
    ] {
        let names = fs::read_dir(dir)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.file_name());
        left.extend(
            names
                .map(|name| format!("{dir}/{}", name.to_string_lossy()))
                .filter(|path| path.contains("hci-0")),
        );
    }
    left
}
