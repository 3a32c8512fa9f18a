//! The programs as processes: by their links, with a cleared environment, side by side, hanging, killed.
#![allow(clippy::disallowed_methods, reason = "these tests run the simulator's own binary")]

use std::{
    io::{BufRead, BufReader, Read, Write},
    os::unix::{net::UnixStream, process::ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use illumos_sim::{
    Sim,
    boot::life::End,
    faults::{Action, Fault},
    state::ZoneState,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::deadline;

struct Host {
    sim: Sim,
    links: PathBuf,
    _dir: tempfile::TempDir,
}

impl Host {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let links = dir.path().join("bin");
        let made = Command::new(env!("CARGO_BIN_EXE_illumos-sim"))
            .arg("install")
            .arg(&links)
            .status()
            .unwrap();
        assert!(made.success());
        Self {
            sim: Sim::create(&dir.path().join("host")).unwrap(),
            links,
            _dir: dir,
        }
    }

    fn command(&self, text: &str) -> Command {
        let mut words = text.split(' ');
        let program = words.next().unwrap();
        let mut command = Command::new(self.links.join(program));
        command
            .args(words)
            .env_clear()
            .env("LC_ALL", "C")
            .env("ILLUMOS_SIM", self.sim.dir())
            .stdin(Stdio::null());
        command
    }

    fn run(&self, text: &str) -> Output {
        self.command(text).output().unwrap()
    }

    fn ok(&self, text: &str) -> String {
        let out = self.run(text);
        assert!(out.status.success(), "{text}: {out:?}");
        String::from_utf8(out.stdout).unwrap()
    }

    fn start(&self, text: &str) -> Child {
        self.command(text)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    fn fault(&self, program: &str, action: Action) {
        let fault = Fault {
            program: program.into(),
            args: Vec::new(),
            nth: 1,
            times: 1,
            action,
            seen: 0,
        };
        self.sim.mutate(|host| host.faults.calls.push(fault)).unwrap();
    }

    /// One installed zone `z1`.
    fn zone(&self) {
        for command in [
            "zfs create -o mountpoint=/zones rpool/zones",
            "zfs create -s -V 1m rpool/disk",
            "zonecfg -z z1 create -b ; set brand=bhyve ; set zonepath=/zones/z1 ; add device ; set match=/dev/zvol/rdsk/rpool/disk ; end ; add attr ; set name=bootdisk ; set type=string ; set value=rpool/disk ; end",
            "zoneadm -z z1 install",
        ] {
            self.ok(command);
        }
    }

    fn zone_is(&self, state: Option<ZoneState>) -> bool {
        self.sim.state().unwrap().zones.get("z1").map(|zone| zone.state) == state
    }
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + deadline::PROMPT;
    while !holds() {
        assert!(Instant::now() < end, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn signal(child: &Child, signal: Signal) {
    kill(Pid::from_raw(child.id().try_into().unwrap()), signal).unwrap();
}

#[test]
fn programs_answer_by_their_links() {
    let host = Host::new();
    assert_eq!(host.ok("zonename"), "global\n");
    let out = host.run("zfs list rpool/none");
    assert_eq!(out.status.code(), Some(1));
    assert_eq!(
        String::from_utf8(out.stderr).unwrap(),
        "cannot open 'rpool/none': dataset does not exist\n"
    );
    assert_eq!(host.run("zfs frobnicate").status.code(), Some(2));
    let through = host
        .command("pfexec /usr/sbin/zoneadm list -cip")
        .env("ILLUMOS_SIM_LINKS", &host.links)
        .output()
        .unwrap();
    assert_eq!(
        String::from_utf8(through.stdout).unwrap(),
        "0:global:running:/::ipkg:shared:0\n"
    );
    let plain = host.ok(&format!("pfexec {}", host.links.join("uname").display()));
    assert_eq!(plain, "SunOS\n");
    let none = host.run("pfexec /no/such/program");
    assert_eq!(none.status.code(), Some(1));
    let argv: Vec<String> = host
        .sim
        .trace()
        .unwrap()
        .iter()
        .map(illumos_sim::trace::Line::command)
        .collect();
    assert_eq!(
        argv,
        [
            "zonename",
            "zfs list rpool/none",
            "zfs frobnicate",
            "zoneadm list -cip",
            "uname"
        ]
    );
}

#[test]
fn programs_side_by_side_lose_nothing() {
    let host = Host::new();
    let children: Vec<Child> = (0..24).map(|n| host.start(&format!("zfs create rpool/d{n}"))).collect();
    for child in children {
        assert!(child.wait_with_output().unwrap().status.success());
    }
    assert_eq!(host.ok("zfs list -H -o name -d 1 rpool").lines().count(), 25);
    assert_eq!(host.sim.trace().unwrap().len(), 25);
}

#[test]
fn faults_hang_and_kill_real_processes() {
    let host = Host::new();
    host.fault("zfs", Action::KillAfter);
    let killed = host.run("zfs create rpool/a");
    assert_eq!(killed.status.signal(), Some(9));
    host.ok("zfs list rpool/a");
    host.fault("dladm", Action::Hang);
    let mut hung = host.start("dladm create-etherstub -t hcis1");
    until("the hang stands in the trace", || {
        host.sim
            .trace()
            .unwrap()
            .iter()
            .any(|line| line.fault.as_deref() == Some("hung"))
    });
    assert!(hung.try_wait().unwrap().is_none());
    signal(&hung, Signal::SIGKILL);
    hung.wait().unwrap();
    assert!(!host.sim.state().unwrap().links.contains_key("hcis1"));
    host.ok("dladm create-etherstub -t hcis1");
}

#[test]
fn halt_blocks_until_bhyve_is_gone_and_killing_it_changes_nothing() {
    let host = Host::new();
    host.zone();
    host.ok("zoneadm -z z1 boot");
    let waits = |host: &Host| {
        host.sim
            .state()
            .unwrap()
            .zones
            .get("z1")
            .is_some_and(|z| z.halting_since.is_some())
    };
    let mut first = host.start("zoneadm -z z1 halt");
    until("the halt waits for the guest", || waits(&host));
    signal(&first, Signal::SIGKILL);
    first.wait().unwrap();
    assert!(waits(&host), "zoneadmd still waits");
    let mut second = host.start("zoneadm -z z1 halt");
    assert!(second.try_wait().unwrap().is_none());
    host.ok("bhyvectl --vm=z1 --force-poweroff");
    assert!(second.wait().unwrap().success());
    assert!(host.zone_is(None));
    host.ok("zoneadm -z z1 uninstall -F");
}

fn connect(host: &Host) -> UnixStream {
    // A socket's name is short, so it is reached through a short link.
    let link = host.links.join("c");
    std::os::unix::fs::symlink(host.sim.root().join("var/run/zones"), &link).ok();
    UnixStream::connect(link.join("z1.console_sock")).unwrap()
}

fn ident(stream: &mut UnixStream) -> String {
    stream.set_read_timeout(Some(deadline::PROMPT)).unwrap();
    stream.write_all(b"IDENT C 0\n").unwrap();
    let mut line = String::new();
    BufReader::with_capacity(1, stream.try_clone().unwrap())
        .read_line(&mut line)
        .unwrap();
    line
}

fn read_until(stream: &mut UnixStream, end: &str) -> String {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !bytes.ends_with(end.as_bytes()) {
        stream.read_exact(&mut byte).unwrap();
        bytes.push(byte[0]);
    }
    String::from_utf8(bytes).unwrap()
}

#[test]
fn the_console_has_one_client_and_forgets() {
    let host = Host::new();
    host.zone();
    host.ok("zoneadmd -z z1");
    host.sim.guest_prints("z1", b"nobody hears this").unwrap();
    let mut console = connect(&host);
    assert_eq!(ident(&mut console), "OK\n");
    let mut other = connect(&host);
    assert_eq!(ident(&mut other).trim().parse::<u32>().unwrap(), std::process::id());
    host.ok("zoneadm -z z1 boot");
    assert_eq!(read_until(&mut console, "up]\r\n"), "\r\n[NOTICE: Zone booting up]\r\n");
    host.sim.guest_prints("z1", b"login: ").unwrap();
    assert_eq!(read_until(&mut console, ": "), "login: ");
    console.write_all(b"root\r").unwrap();
    until("the guest hears it", || {
        host.sim.guest_heard("z1").unwrap() == b"root\r"
    });
    host.sim.guest_ends("z1", End::Code(1)).unwrap();
    assert_eq!(read_until(&mut console, "halted]\r\n"), "\r\n[NOTICE: Zone halted]\r\n");
    drop(console);
    let socket = host.sim.root().join("var/run/zones/z1.console_sock");
    until("the daemon goes with its last client", || !socket.exists());
}

#[test]
fn the_daemon_keeps_nothing_of_its_caller() {
    let host = Host::new();
    host.zone();
    // A lock that the command inherits, as a caller's children do.
    let path = host.sim.dir().join("inherited");
    let file = std::fs::File::create(&path).unwrap();
    let lock = nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockExclusive)
        .map_err(|(_, errno)| errno)
        .unwrap();
    rustix::io::fcntl_setfd(&*lock, rustix::io::FdFlags::empty()).unwrap();
    host.ok("zoneadm -z z1 boot");
    rustix::io::fcntl_setfd(&*lock, rustix::io::FdFlags::CLOEXEC).unwrap();
    let held = |path: &Path| {
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        // Without `self` and `thread-self`, which are this process too.
        let other = |name: &str| name.parse().is_ok_and(|pid: u32| pid != std::process::id());
        let others = processes.filter(|process| process.file_name().to_str().is_some_and(other));
        others
            .filter_map(|process| std::fs::read_dir(process.path().join("fd")).ok())
            .flat_map(|fds| fds.flatten())
            .any(|fd| std::fs::read_link(fd.path()).is_ok_and(|target| target == path))
    };
    until("only the caller holds it", || !held(&path));
    assert_eq!(ident(&mut connect(&host)), "OK\n");
}

#[test]
fn zlogin_sits_at_the_console() {
    let host = Host::new();
    host.zone();
    let said = host.run("zlogin -C none");
    assert_eq!(String::from_utf8(said.stderr).unwrap(), "zlogin: zone 'none' unknown\n");
    let said = host.run("zlogin z1 date");
    let text = "zlogin: login allowed only to running zones (z1 is 'installed').\n";
    assert_eq!(String::from_utf8(said.stderr).unwrap(), text);
    assert_eq!(host.run("zlogin -C z1 date").status.code(), Some(2));
    host.ok("zoneadm -z z1 boot");
    // Without a terminal it connects, and that is all.
    let said = host.run("zlogin -C z1");
    let text = "zlogin: failed to get user terminal settings: Not a typewriter\nzlogin: failed to set stdin pty to raw mode: Not a typewriter\n";
    assert_eq!(String::from_utf8(said.stderr).unwrap(), text);
    assert_eq!(
        String::from_utf8(said.stdout).unwrap(),
        "[Connected to zone 'z1' console]\n"
    );
    assert_eq!(said.status.code(), Some(1));
    let (mut person, keyboard) = illumos_sim::tty::open().unwrap();
    // Its end comes a moment after it: the console is free when zoneadmd has seen it.
    until("the console is free", || ident(&mut connect(&host)) == "OK\n");
    let mut login = host.command("zlogin -C z1");
    let mut login = login.stdin(keyboard).stdout(Stdio::piped()).spawn().unwrap();
    let mut out = BufReader::new(login.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    assert_eq!(line, "[Connected to zone 'z1' console]\n");
    let second = host.run("zlogin -C z1");
    assert_eq!(second.status.code(), Some(1));
    let text = format!("zlogin: Zone is already in use by process ID {}.\n", login.id());
    assert_eq!(String::from_utf8(second.stderr).unwrap(), text);
    host.sim.guest_prints("z1", b"hello\n").unwrap();
    line.clear();
    while line != "hello\n" {
        line.clear();
        out.read_line(&mut line).unwrap();
    }
    // Every byte at once, and as it is.
    person.write_all(b"\x03\r").unwrap();
    until("it is heard", || host.sim.guest_heard("z1").unwrap() == b"\x03\r");
    drop(person);
    assert!(login.wait().unwrap().success());
    host.ok("bhyvectl --vm=z1 --force-poweroff");
}

#[test]
fn a_boot_whose_client_was_killed_goes_on() {
    let host = Host::new();
    host.zone();
    host.fault("zoneadm", Action::KillAfter);
    assert_eq!(host.run("zoneadm -z z1 boot").status.signal(), Some(9));
    assert!(host.zone_is(Some(ZoneState::Running)));
    assert_eq!(ident(&mut connect(&host)), "OK\n");
    host.fault(
        "zoneadm",
        Action::FailAfter {
            code: 1,
            stderr: "zoneadm: lost\n".into(),
        },
    );
    assert_eq!(host.run("zoneadm -z z1 halt").status.code(), Some(1));
    assert!(
        host.zone_is(Some(ZoneState::Running)),
        "the halt waits for the guest, without its client"
    );
    host.ok("bhyvectl --vm=z1 --force-poweroff");
}

#[test]
fn a_power_cycle_ends_the_daemon() {
    let host = Host::new();
    host.zone();
    host.ok("zoneadm -z z1 boot");
    let mut console = connect(&host);
    assert_eq!(ident(&mut console), "OK\n");
    host.sim.host_reboot().unwrap();
    let mut rest = Vec::new();
    console.read_to_end(&mut rest).unwrap();
    assert!(!Path::new(&host.sim.root().join("var/run/zones/z1.console_sock")).exists());
}

#[test]
fn a_second_install_waits_for_one_that_hangs() {
    let host = Host::new();
    host.zone();
    host.ok("zoneadm -z z1 uninstall -F");
    host.fault("zoneadm", Action::Hang);
    let mut first = host.start("zoneadm -z z1 install");
    until("the lock is held", || {
        host.sim.state().unwrap().locks.contains_key("z1")
    });
    let mut second = host.start("zoneadm -z z1 install");
    // Other zones and listings are independent of it.
    host.ok("zoneadm list -cip");
    assert!(second.try_wait().unwrap().is_none());
    signal(&first, Signal::SIGKILL);
    first.wait().unwrap();
    assert!(second.wait().unwrap().success());
    assert!(host.ok("zoneadm -z z1 list -p").contains(":installed:"));
}

/// The commands that docs of a node describe for one attempt, from nothing to nothing.
#[test]
fn one_attempt_from_clone_to_nothing() {
    let host = Host::new();
    for command in [
        "zfs create -o helios-ci:node=n1 rpool/hci",
        "zfs create -o mountpoint=none rpool/hci/images",
        "zfs create -s -V 1m rpool/hci/images/v1",
        "zfs snapshot rpool/hci/images/v1@gold",
        "zfs hold helios-ci rpool/hci/images/v1@gold",
        "zfs create -o mountpoint=none -o quota=10G rpool/hci/machines",
        "zfs create -o mountpoint=/zones/hci rpool/hci/zones",
    ] {
        host.ok(command);
    }
    let before = host.sim.state().unwrap();
    let create = [
        "zfs clone -o helios-ci:node=n1 -o helios-ci:attempt=01A -o sync=disabled rpool/hci/images/v1@gold rpool/hci/machines/z1",
        "zfs set volsize=2m rpool/hci/machines/z1",
        "zfs create -o helios-ci:node=n1 -o helios-ci:attempt=01A -o sharenfs=off -o sharesmb=off -o quota=256m rpool/hci/zones/z1",
        "zonecfg -z z1 create -b ; set brand=bhyve ; set zonepath=/zones/hci/z1 ; set autoboot=false ; set ip-type=exclusive ; set max-lwps=100 ; add net ; set physical=hciv7 ; end ; add device ; set match=/dev/zvol/rdsk/rpool/hci/machines/z1 ; end ; add attr ; set name=bootdisk ; set type=string ; set value=rpool/hci/machines/z1 ; end ; verify ; commit",
        "zoneadm -z z1 install",
        "dladm create-etherstub -t hcis7",
        "dladm create-vnic -t -l hcis7 -m 02:08:20:00:2a:01 hcih7",
        "dladm create-vnic -t -l hcis7 -m 02:08:20:00:2a:02 hciv7",
        "dladm set-linkprop -t -p mtu=1500 hcih7",
        "dladm set-linkprop -t -p mtu=1500 -p maxbw=500M -p protection=mac-nospoof,restricted,ip-nospoof,dhcp-nospoof -p allowed-ips=10.77.0.30/32 hciv7",
        "ipadm create-addr -t -T static -a 10.77.0.29/30 hcih7/v4",
        "ipadm set-ifprop -t -p forwarding=off -m ipv4 hcih7",
        "zoneadmd -z z1",
        "zoneadm -z z1 boot",
    ];
    let destroy = [
        "bhyvectl --vm=z1 --force-poweroff",
        "zoneadm -z z1 halt",
        "zoneadm -z z1 uninstall -F",
        "zonecfg -z z1 delete -F",
        "ipadm delete-addr hcih7/v4",
        "ipadm delete-if hcih7",
        "dladm delete-vnic -t hciv7",
        "dladm delete-vnic -t hcih7",
        "dladm delete-etherstub -t hcis7",
        "zfs destroy rpool/hci/machines/z1",
    ];
    create.iter().for_each(|command| drop(host.ok(command)));
    assert!(host.zone_is(Some(ZoneState::Running)));
    assert_eq!(
        std::fs::metadata(host.sim.root().join("dev/zvol/rdsk/rpool/hci/machines/z1"))
            .unwrap()
            .len(),
        2 << 20
    );
    destroy.iter().for_each(|command| drop(host.ok(command)));
    let mut after = host.sim.state().unwrap();
    after.serial = before.serial;
    assert_eq!(after, before);
    assert_eq!(
        std::fs::read_to_string(host.sim.root().join("etc/zones/index")).unwrap(),
        "global:installed:/\n"
    );
    assert_eq!(std::fs::read_dir(host.sim.root().join("zones/hci")).unwrap().count(), 0);
}
