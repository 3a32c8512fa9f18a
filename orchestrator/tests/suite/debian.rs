//! The full Debian guest (`make image-debian`) boots from its golden disk through UEFI firmware: a job
//! runs in it, it takes in everything the seed disk says, and it obeys the power button. Where the image
//! was not built this says so and passes.

#![allow(clippy::disallowed_methods, reason = "tests start programs as a person would")]

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use helios_ci::{
    clock::now_ms,
    config::Image,
    machine::{
        MachineSpec, Machines, Observed, Seed,
        qemu::{self, Accel},
        seed::{self, Addresses, StaticNetwork},
    },
    model::{ids::AttemptId, illumos::network::MacAddress, names::MachineName},
    secret::Secret,
};
use serde_json::Value;

use crate::support::{self, World, deadline, prerequisites};

const HOUR_MS: i64 = 3_600_000;
/// Larger than the golden disk, so that there is something to grow into.
const DISK_GIB: u64 = 5;
const MAC: &str = "2:8:20:0:2a:2";
const SEEDED_MAC: &str = "02:08:20:00:2a:02";
/// Where the recipe puts the root partition, in bytes.
const ROOT_AT: u64 = 129 << 20;

/// Says that it is there, and when it is told to end; to the console itself, which nothing delays.
const STAND_IN: &str = "#!/bin/sh\nexec >/dev/console\ntrap 'echo stand-in told to end; exit 0' TERM\n\
    echo \"stand-in $1 $2\"\nsleep infinity &\nwait\n";

fn image() -> Option<PathBuf> {
    let built = prerequisites::built("images/debian", "HELIOS_CI_DEBIAN");
    if built.is_none() {
        prerequisites::skip_unless_full("no Debian image (`make image-debian`)");
    }
    Some(built?.join("disk.qcow2"))
}

fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program)
        .args(args)
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {stderr}");
    String::from_utf8(output.stdout).expect("text") + &stderr
}

fn spec() -> MachineSpec {
    MachineSpec {
        name: MachineName::of(AttemptId::new()),
        node: "n1".parse().expect("a name"),
        image: "debian".parse().expect("a label"),
        cpus: 1,
        memory_mib: 768,
        disk_gib: None,
        seed: Seed {
            fingerprint: "ab".repeat(32),
            token: Secret::new("t0ken"),
            time_ms: now_ms(),
        },
    }
}

/// The network-config that a machine with an address of its own finds on its seed disk.
fn network_config() -> String {
    let addresses = Addresses {
        agent: "tcp:10.77.0.1:9417".into(),
        git: "10.77.0.1:9418".into(),
        state_dir: "/var/lib/helios-agent".into(),
        power_off: true,
        network: Some(StaticNetwork {
            mac: MacAddress::parse(MAC).expect("an address"),
            address: "10.77.0.2".parse().expect("an address"),
        }),
    };
    let texts = seed::texts(&spec(), &addresses).expect("the seed's texts");
    let found = texts.into_iter().find(|(name, _)| *name == "network-config");
    found.expect("a network-config").1
}

/// What the job looks at, one fact a line.
fn script() -> String {
    let config = network_config();
    format!(
        r#"set -eu
test -d /sys/firmware/efi && echo "booted by UEFI"
echo "root $(df --block-size=1M --output=size / | tail -n 1)"
echo "machine-id $(cat /etc/machine-id)"
echo "host $(hostname)"
echo "clock $(date +%s)"
echo "failed units: $(systemctl list-units --failed --no-legend | wc -l)"
echo "link $(ip -o -4 addr show scope global | awk '{{print $4; exit}}')"
for program in bash tar gzip xz zstd python3 sudo git; do command -v $program >/dev/null || echo "missing $program"; done
test -s /etc/ssl/certs/ca-certificates.crt && sudo -n true && git --version
cat >/tmp/network-config <<'END'
{config}
END
cat >/tmp/apply.py <<'END'
from importlib.machinery import SourceFileLoader
seed = SourceFileLoader("seed", "/usr/lib/helios-ci/seed").load_module()
seed.SEED = "/tmp"
seed.configure_network(seed.NETWORKS)
END
python3 /tmp/apply.py
ip link add job0 address {SEEDED_MAC} type veth peer name job1
ip link set job1 up
networkctl reload
tries=0
until ip -o -4 addr show dev job0 | grep 10.77.0.2/30; do
  tries=$((tries + 1))
  test $tries -lt 600 || {{ networkctl status job0; exit 1; }}
  sleep 0.1
done
echo "address by MAC"
"#
    )
}

fn workflow() -> String {
    let mut text = String::from(
        "name: ci\non: push\njobs:\n  job:\n    runs-on: debian\n    timeout-minutes: 15\n    steps:\n      - run: |\n",
    );
    for line in script().lines() {
        text.push_str(&format!("          {line}\n"));
    }
    text
}

/// The rest of the first line that begins so.
fn fact<'a>(log: &'a str, name: &str) -> &'a str {
    let rest = log.lines().find_map(|line| line.strip_prefix(name));
    rest.unwrap_or_else(|| panic!("no line {name:?} in:\n{log}")).trim()
}

/// Nothing in the golden disk makes two machines alike.
fn golden_disk_is_nobodys(disk: &Path) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let raw = dir.path().join("disk.raw").display().to_string();
    run("qemu-img", &["convert", "-O", "raw", &disk.display().to_string(), &raw]);
    let debugfs = |request: &str| {
        run(
            "/usr/sbin/debugfs",
            &["-R", request, &format!("{raw}?offset={ROOT_AT}")],
        )
    };
    let id = debugfs("stat /etc/machine-id");
    assert!(id.contains("Type: regular") && id.contains("Size: 0"), "{id}");
    for path in [
        "/var/lib/dbus/machine-id",
        "/var/lib/systemd/random-seed",
        "/etc/ssh/ssh_host_ed25519_key",
        "/usr/sbin/sshd",
        "/usr/local/sbin/helios-agent",
    ] {
        let answer = debugfs(&format!("stat {path}"));
        assert!(answer.contains("File not found"), "{path}: {answer}");
    }
}

/// A whole job, on a node whose clock is an hour ahead of this host's and so of the guest's.
async fn a_job_runs(disk: &Path) {
    let mut world = World::stopped(support::Machines::Qemu, "").await;
    let text = fs::read_to_string(world.config()).expect("the configuration");
    let ours = format!(
        "images:\n  debian:\n    disk: {}\n    size: {{cpus: 2, memory_mib: 1024, disk_gib: {DISK_GIB}}}\n    boot_timeout_s: {}\n",
        disk.display(),
        deadline::DEBIAN.as_secs()
    );
    assert!(text.contains("\nimages:\n"));
    fs::write(world.config(), text.replacen("images:\n", &ours, 1)).expect("the configuration");
    let shift = world.dir.path().join("shift");
    fs::write(&shift, HOUR_MS.to_string()).expect("the shift");
    world.up_with(&[("HELIOS_CI_CLOCK_SHIFT", shift.to_str().expect("a plain path"))]);

    let before = now_ms();
    let sha = world.push(&workflow()).await;
    let word = world
        .forge
        .wait_for_word(&sha, "helios-ci", "success", deadline::DEBIAN)
        .await;
    let job = world.jobs(&sha).into_iter().next().unwrap_or(Value::Null);
    let id = job["id"].as_str().unwrap_or_default();
    if let Err(error) = word {
        panic!("{error}\n{}\n{}", world.log_now(id), world.daemon_log());
    }
    println!("pushed to success in {} s", (now_ms() - before) / 1000);
    let log = world.log(id);
    println!("{log}");
    for line in ["booted by UEFI", "failed units: 0", "git version 2.", "address by MAC"] {
        assert!(log.contains(line), "no {line:?} in:\n{log}");
    }
    assert!(!log.contains("missing "), "{log}");
    let root: u64 = fact(&log, "root").parse().expect("MiB");
    assert!(root > (DISK_GIB - 1) * 1024, "{root} MiB were not grown:\n{log}");
    let machine_id = fact(&log, "machine-id");
    assert!(machine_id.len() == 32, "{machine_id}");
    assert!(fact(&log, "host").starts_with("hci-"), "{log}");
    assert_eq!(fact(&log, "link"), "10.0.2.15/24");
    let off: i64 = fact(&log, "The machine's clock was off by")
        .split(' ')
        .next()
        .and_then(|ms| ms.parse().ok())
        .expect("milliseconds");
    assert!((off - HOUR_MS).abs() < 60_000, "{off}");
    let clock: i64 = fact(&log, "clock").parse().expect("seconds");
    let passed = clock * 1000 - HOUR_MS - before;
    assert!(
        (-5_000..i64::try_from(deadline::DEBIAN.as_millis()).expect("ms")).contains(&passed),
        "{passed}"
    );
    // The agent turned the machine off, and nothing of it is left.
    world.nothing_left();
    assert_eq!(world.down(), Some(0));
}

fn image_of(disk: &Path) -> Image {
    Image {
        disk: Some(disk.to_owned()),
        boot_timeout_s: deadline::DEBIAN.as_secs(),
        ..Image::default()
    }
}

/// Reads the console until it says a word.
async fn says(machines: &Arc<dyn Machines>, name: &MachineName, word: &str) -> Result<(), String> {
    let (mut text, mut from, until) = (Vec::new(), 0, Instant::now() + deadline::DEBIAN);
    loop {
        let part = machines.console(name, from).await.map_err(|error| error.to_string())?;
        from = part.next;
        text.extend(part.bytes);
        let said = String::from_utf8_lossy(&text);
        if said.contains(word) {
            return Ok(());
        }
        if Instant::now() > until {
            return Err(format!("the console never said {word:?} but {said}"));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A guest whose agent does nothing is shut down by its power button.
async fn the_power_button_works(disk: &Path) {
    let dir = tempfile::Builder::new()
        .prefix("hd")
        .tempdir_in("/tmp")
        .expect("a directory");
    let agent = dir.path().join("agent");
    fs::write(&agent, STAND_IN).expect("the agent");
    fs::set_permissions(&agent, fs::Permissions::from_mode(0o755)).expect("its mode");
    let machines = qemu::open(qemu::Options {
        node: "n1".parse().expect("a name"),
        data_dir: dir.path().to_owned(),
        images: BTreeMap::from([("debian".parse().expect("a label"), image_of(disk))]),
        agent,
        helios_ci: support::helios_ci(),
        accel: Accel::Tcg,
    })
    .expect("the back end");
    let spec = spec();
    let name = &spec.name;
    machines.prepare(&spec).await.expect("it is prepared");
    machines.start(name).await.expect("it starts");
    let up = says(&machines, name, "stand-in --seed /run/helios-seed").await;
    let stop = machines.stop(name, deadline::DEBIAN).await;
    let observed = machines.observe(name).await;
    let ended = said(&machines, name).await;
    // First of all nothing may stay behind.
    machines.destroy(name).await.expect("it is destroyed");
    assert_eq!(up, Ok(()));
    stop.expect("it stops");
    assert!(matches!(observed, Ok(Observed::Stopped(_))), "{observed:?}");
    // Who loses power hears nothing of it.
    assert!(ended.contains("stand-in told to end"), "{ended}");
}

/// All that the console said.
async fn said(machines: &Arc<dyn Machines>, name: &MachineName) -> String {
    let (mut text, mut from) = (Vec::new(), 0);
    while let Ok(part) = machines.console(name, from).await {
        if part.bytes.is_empty() {
            break;
        }
        from = part.next;
        text.extend(part.bytes);
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// One test, so that one guest runs at a time.
#[tokio::test(flavor = "multi_thread")]
async fn the_debian_guest_boots_works_and_shuts_down() {
    let Some(disk) = image() else { return };
    golden_disk_is_nobodys(&disk);
    the_power_button_works(&disk).await;
    a_job_runs(&disk).await;
}
