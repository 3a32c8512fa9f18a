//! What an administrator types, with the real program, and machined as a process of its own.

#![allow(
    clippy::disallowed_methods,
    reason = "the program is started as an administrator would"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use helios_ci::{
    machine::{MachineSpec, Machines, Observed, Seed, machined},
    secret::Secret,
};
use illumos_sim::trace::Line;
use sha2::{Digest, Sha256};

use super::{
    budget, deadline, expected_state,
    simulated_host::{self, host, left, prepare, spec},
};

pub const CONFIG: &str = "/run/config.yaml";

pub fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_helios-ci"));
    command.args(["--config", CONFIG]).args(args);
    command
}

pub fn run(args: &[&str]) -> Output {
    command(args).output().expect("helios-ci")
}

pub fn said(args: &[&str]) -> String {
    let output = run(args);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{args:?}: {text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

pub fn configure() {
    fs::write("/run/agent", b"agent").unwrap();
    fs::write(
        CONFIG,
        "node: n1\nbackend: zone\ndata_dir: /run/data\nagent: /run/agent\nzone: {path: /mnt/hci}\n\
         machined: {socket: /run/machined.sock, user: root}\ncapacity: {memory_mib: 65536}\nimages: {debian: {size: {cpus: 2, memory_mib: 1024, disk_gib: 1}}}\n",
    )
    .unwrap();
}

/// A machined that is killed when the test ends.
pub struct Keeper(pub Child);

impl Keeper {
    pub fn start() -> Self {
        let log = fs::File::create("/run/machined.log").unwrap();
        Self(command(&["machined"]).stdin(Stdio::null()).stderr(log).spawn().unwrap())
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _reaped = self.0.wait();
    }
}

pub async fn connected() -> std::sync::Arc<dyn Machines> {
    let until = Instant::now() + deadline::PROMPT;
    loop {
        match machined::connect(Path::new("/run/machined.sock"), &"n1".parse().unwrap()).await {
            Ok(machines) => return machines,
            Err(error) if Instant::now() > until => {
                panic!(
                    "{error}: {}",
                    fs::read_to_string("/run/machined.log").unwrap_or_default()
                )
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// What `machine plan` prints is what the host saw of this machine's life, to the letter: each command of the plan was
/// run, each act was planned, and the seed says what was planned but for the token, which nobody is shown.
fn what_was_planned_was_done(machine: &str, life: &[Line], seed: BTreeMap<String, Vec<u8>>) {
    let attempt = machine.trim_start_matches("hci-");
    let plan = said(&["machine", "plan", "--image", "debian", "--attempt", attempt, "--json"]);
    let plan: serde_json::Value = serde_json::from_str(&plan).unwrap();
    let seen: Vec<String> = life.iter().map(Line::command).collect();
    let planned = ["commands", "teardown"]
        .iter()
        .flat_map(|part| plan[part].as_array().unwrap());
    // The trace has programs by their names, and what pfexec runs instead of pfexec.
    let planned = planned.map(|command| {
        let words = command.as_str().unwrap().trim_start_matches("/usr/bin/pfexec ");
        let (program, words) = words.split_once(' ').unwrap();
        format!("{} {words}", program.rsplit('/').next().unwrap())
    });
    let planned: BTreeSet<String> = planned.collect();
    for command in &planned {
        // A zone whose power was taken halts by itself.
        let needless = command.ends_with(" halt");
        assert!(
            needless || seen.contains(command),
            "{command} is planned and was not run: {seen:#?}"
        );
    }
    let acts: Vec<String> = life
        .iter()
        .filter(|line| budget::acts(line))
        .map(Line::command)
        .collect();
    assert!(acts.len() >= 20, "{acts:#?}");
    for act in acts {
        assert!(planned.contains(&act), "{act} was run and is not planned: {planned:#?}");
    }
    let shown = plan["seed"].as_object().unwrap();
    let shown = shown.iter().map(|(name, text)| (name.as_str(), text.as_str().unwrap()));
    expected_state::seed_as_planned(seed, shown, TOKEN, "the plan");
}

/// The token of the machine that is compared with its plan.
const TOKEN: &str = "hjt_for_this_machine_alone";

/// A machine of which a plan can know everything but its token: no certificate, and the beginning of time.
fn planned_spec() -> MachineSpec {
    MachineSpec {
        seed: Seed {
            fingerprint: "0".repeat(64),
            token: Secret::new(TOKEN),
            time_ms: 0,
        },
        ..spec()
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run inside a simulated host by zones_on_a_simulated_host"]
async fn from_a_bare_host_to_a_machine_that_machined_keeps() {
    configure();
    let before = host().state().unwrap();
    let shown = said(&["setup"]);
    assert!(
        shown.contains("zfs create") && shown.contains("/etc/ipf/ipf.conf") && shown.contains("Nothing was done"),
        "{shown}"
    );
    assert_eq!(host().state().unwrap(), before);
    let doctor = || String::from_utf8_lossy(&run(&["doctor"]).stdout).into_owned();
    let found = doctor();
    assert!(found.contains("FAILURE  machined"), "{found}");
    assert!(
        found.contains("ok       illumos: omnios-") && found.contains("ok       bhyve brand"),
        "{found}"
    );
    assert!(
        found.contains("FAILURE  datasets and rules") && !found.contains("image debian"),
        "{found}"
    );
    said(&["setup", "--yes"]);
    assert!(said(&["setup"]).contains("Nothing to do"));
    let keeper = Keeper::start();
    let machines = connected().await;
    let found = doctor();
    assert!(found.contains("ok       machined"), "{found}");
    assert!(
        found.contains("ok       datasets and rules") && found.contains("FAILURE  image debian"),
        "{found}"
    );
    assert!(found.contains("ok       forwarding: off"), "{found}");
    assert!(found.contains("ok       links: a VNIC was made"), "{found}");
    assert!(
        found.contains("warning  memory: ") && found.contains("zfs_arc_max"),
        "{found}"
    );
    assert!(found.contains("pool: "), "{found}");
    // Before there is an image: what zonecfg or the brand refuse, none mends.
    let tried = "ok       zone of debian: zonecfg took a trial's configuration, and the brand's dry run is as planned";
    assert!(found.contains(tried), "{found}");
    assert_eq!(
        left(),
        Vec::<String>::new(),
        "the links and the zone that were tried are gone"
    );
    let content = vec![3; 100_000];
    fs::write("/run/disk.zst", zstd::encode_all(content.as_slice(), 1).unwrap()).unwrap();
    let digest = hex::encode(Sha256::digest(&content));
    let imported = said(&["image", "import", "/run/disk.zst", "debian", "--sha256", &digest]);
    assert!(imported.contains("version 1"), "{imported}");
    assert!(
        imported.ends_with("image verify debian --boot` tries it in a machine of its own.\n"),
        "{imported}"
    );
    assert!(said(&["image", "list"]).contains("rpool/hci/images/debian/v1"));
    said(&["image", "verify", "debian"]);
    let found = doctor();
    assert!(found.contains("ok       image debian: version 1"), "{found}");

    let spec = planned_spec();
    let begun = host().trace().unwrap().len();
    machines.prepare(&spec).await.unwrap();
    let seed = expected_state::seed_files(Path::new(&format!("/mnt/hci/{}/root/seed.img", spec.name)));
    machines.start(&spec.name).await.unwrap();
    let name = spec.name.to_string();
    assert!(said(&["machine", "list"]).contains(&format!("{name}  running")));
    host().guest_prints(&name, b"debian\x1b[31m login: ").unwrap();
    let until = Instant::now() + deadline::PROMPT;
    // Recorded a moment after it was said; what would steer a terminal is left out.
    while !said(&["console", "--direct", "--once", &name]).contains("debian[31m login: ") {
        assert!(
            Instant::now() < until,
            "{}",
            said(&["console", "--direct", "--once", &name])
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // machined dies; the zone does not notice, and the next machined knows it.
    drop(keeper);
    let _keeper = Keeper::start();
    let machines = connected().await;
    // Nobody has asked for it: the guest would wait for a reader.
    let recorded = || -> String {
        let files = fs::read_dir(format!("/run/helios-ci/console/{name}")).unwrap();
        let texts = files.map(|file| fs::read(file.unwrap().path()).unwrap());
        texts.map(|text| String::from_utf8_lossy(&text).into_owned()).collect()
    };
    let until = Instant::now() + deadline::PROMPT;
    while !recorded().contains("was not read") {
        assert!(Instant::now() < until, "{}", recorded());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(machines.observe(&spec.name).await.unwrap(), Observed::Running);
    machines.destroy(&spec.name).await.unwrap();
    assert_eq!(left(), Vec::<String>::new());
    what_was_planned_was_done(&name, &host().trace().unwrap()[begun..], seed);
    let ran: BTreeSet<String> = host()
        .trace()
        .unwrap()
        .into_iter()
        .map(|line| line.argv[0].rsplit('/').next().unwrap_or_default().to_owned())
        .collect();
    // What docs/operations.md says that machined and the administrator's commands run.
    let documented = include_str!("../../../../docs/operations.md");
    for program in ran {
        assert!(
            documented.contains(&format!("`{program}`")),
            "{program} is not documented"
        );
    }
}

#[tokio::test]
#[ignore = "run inside a simulated host by zones_on_a_simulated_host"]
async fn a_place_that_is_anothers_is_not_taken() {
    configure();
    let made = host().run("zfs", &["create", "rpool/hci"]).unwrap();
    assert!(format!("{made:?}").contains("code: 0"), "{made:?}");
    let output = run(&["setup", "--yes"]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success() && text.contains("does not carry the owner tag"),
        "{text}"
    );
    assert!(!host().state().unwrap().datasets.contains_key("rpool/hci/images"));
}

/// Who may not do what zones need is told at once, and as a service not started again and again.
#[tokio::test]
#[ignore = "run inside a simulated host by zones_on_a_simulated_host"]
async fn only_root_keeps_zones() {
    configure();
    // Where this user may read the program, and write.
    let room = Path::new("/run/nobody");
    let program = room.join("helios-ci");
    fs::create_dir(room).unwrap();
    fs::copy(env!("CARGO_BIN_EXE_helios-ci"), &program).unwrap();
    let config = fs::read_to_string(CONFIG).unwrap().replace("/run/", "/run/nobody/");
    fs::write(room.join("config.yaml"), config).unwrap();
    fs::write(room.join("agent"), b"agent").unwrap();
    std::os::unix::fs::chown(room, Some(65534), Some(65534)).unwrap();
    for (fmri, code) in [(Some("svc:/application/helios-ci/machined:default"), 96), (None, 2)] {
        let mut command = Command::new(&program);
        command.args(["machined", "--config", "/run/nobody/config.yaml"]);
        command.env_remove("SMF_FMRI").envs(fmri.map(|fmri| ("SMF_FMRI", fmri)));
        let output = command.uid(65534).gid(65534).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{text}");
        let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(
            words.contains("zones are kept by root, and this process runs as user 65534"),
            "{text}"
        );
        assert!(words.contains("limit_privileges"), "{text}");
    }
}

/// A brand of another release, which knows one attribute less and one device more, and one that fails.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "run inside a simulated host by zones_on_a_simulated_host"]
async fn a_brand_that_ignores_an_attribute_is_told_by_doctor() {
    const HOOK: &str = "/usr/lib/brand/bhyve/boot";
    configure();
    prepare();
    let _keeper = Keeper::start();
    connected().await;
    fs::create_dir("/usr/lib/brand/bhyve/real").unwrap();
    fs::rename(HOOK, "/usr/lib/brand/bhyve/real/boot").unwrap();
    let doctor_with = |hook: &str| {
        fs::write(HOOK, format!("#!/bin/sh\n{hook}\n")).unwrap();
        fs::set_permissions(HOOK, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let found = String::from_utf8_lossy(&run(&["doctor"]).stdout).into_owned();
        let lines = found.lines().filter(|line| line.contains("zone of debian"));
        lines.collect::<Vec<_>>().join("\n")
    };
    let hook = "/usr/lib/brand/bhyve/real/boot \"$@\" | sed 's/10:0,virtio-rnd/11:0,virtio-9p/'";
    let found = doctor_with(hook);
    assert!(
        found.starts_with("FAILURE") && found.contains("`-s 10:0,virtio-rnd`"),
        "{found}"
    );
    let hook = "/usr/lib/brand/bhyve/real/boot \"$@\" | sed 's/-s 1,lpc/-s 11:0,virtio-9p &/'";
    let found = doctor_with(hook);
    assert!(
        found.starts_with("warning") && found.contains("`-s 11:0,virtio-9p`"),
        "{found}"
    );
    let found = doctor_with("echo bootrom BHYVE_RELEASE not found. >&2; exit 1");
    assert!(found.starts_with("FAILURE") && found.contains("not found."), "{found}");
    let found = doctor_with("echo hello");
    assert!(
        found.starts_with("FAILURE") && found.contains("no command line of bhyve"),
        "{found}"
    );
    assert_eq!(left(), Vec::<String>::new());
}

/// What `setup` refuses, in one line.
fn setup_refuses() -> String {
    let output = run(&["setup", "--yes"]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{text}");
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[tokio::test]
#[ignore = "run inside a simulated host by zones_on_a_simulated_host"]
async fn setup_makes_rules_last_and_leaves_anothers_policy_alone() {
    configure();
    let set = |name: &str, value: &str| {
        let property = format!("firewall_config_default/{name}");
        simulated_host::run(
            "svccfg",
            &[
                "-s",
                "network/ipfilter:default",
                "setprop",
                &property,
                "=",
                "astring:",
                value,
            ],
        );
        simulated_host::run("svcadm", &["refresh", "network/ipfilter:default"]);
    };
    set("policy", "deny");
    let before = simulated_host::picture();
    let said_of = setup_refuses();
    assert!(
        said_of.contains("policy `deny`") && said_of.contains("svccfg -s network/ipfilter:default setprop"),
        "{said_of}"
    );
    assert_eq!(simulated_host::changed(&before), Vec::<String>::new());
    set("policy", "custom");
    set("custom_policy_file", "/etc/own.conf");
    assert!(setup_refuses().contains("/etc/own.conf"));
    set("policy", "none");
    assert!(said(&["setup", "--yes"]).contains("setprop firewall_config_default/policy = astring: custom"));
    assert!(said(&["setup"]).contains("Nothing to do"));
    host().host_reboot().unwrap();
    assert!(said(&["setup"]).contains("Nothing to do"), "{}", said(&["setup"]));
    // Half of what was ours there is not guessed at.
    let rules = fs::read_to_string("/etc/ipf/ipf.conf").unwrap();
    fs::write("/etc/ipf/ipf.conf", rules.replace("# helios-ci: end", "pass in all")).unwrap();
    assert!(setup_refuses().contains("restore that line"));
}

#[tokio::test]
#[ignore = "run inside a simulated host by zones_on_a_simulated_host"]
async fn setup_bounds_the_machines_mounts_the_zones_and_wants_their_parents_roots() {
    prepare();
    configure();
    let config = fs::read_to_string(CONFIG).unwrap();
    fs::write(CONFIG, config.replace("path: /mnt/hci", "path: /mnt/hci, quota_gib: 3")).unwrap();
    simulated_host::run("zfs", &["unmount", "rpool/hci/zones"]);
    let shown = said(&["setup", "--yes"]);
    assert!(
        shown.contains("zfs set quota=3G rpool/hci/machines") && shown.contains("zfs mount rpool/hci/zones"),
        "{shown}"
    );
    assert!(said(&["setup"]).contains("Nothing to do"));
    let machines = simulated_host::machines();
    let spec = spec();
    machines.prepare(&spec).await.unwrap();
    machines.destroy(&spec.name).await.unwrap();
    // Less than a machine may be begun with.
    simulated_host::run("zfs", &["set", "quota=1000m", "rpool/hci/machines"]);
    let error = machines.prepare(&spec).await.unwrap_err();
    assert!(
        error.retryable && error.reason.contains("free below rpool/hci/machines"),
        "{error}"
    );
    machines.destroy(&spec.name).await.unwrap();
    assert!(said(&["setup"]).contains("quota=3G"), "what was configured is restored");
    fs::set_permissions("/mnt", std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    assert!(setup_refuses().contains("/mnt does not belong to root"));
}

#[tokio::test]
#[ignore = "run inside a simulated host by zones_on_a_simulated_host"]
async fn addresses_of_the_host_are_not_taken() {
    configure();
    for (program, args) in [
        ("dladm", &["create-etherstub", "-t", "lan0"][..]),
        ("dladm", &["create-vnic", "-t", "-l", "lan0", "lan1"]),
        (
            "ipadm",
            &["create-addr", "-t", "-T", "static", "-a", "10.77.9.1/24", "lan1/v4"],
        ),
    ] {
        let made = host().run(program, args).unwrap();
        assert!(format!("{made:?}").contains("code: 0"), "{args:?}: {made:?}");
    }
    let output = run(&["setup", "--yes"]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let words: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        !output.status.success() && words.contains("overlap 10.77.9.1/24 of lan1/v4"),
        "{text}"
    );
}
