//! A real kernel on the emulated machine: what it finds on its PCI bus is what the brand's slots let it find.
#![allow(clippy::disallowed_methods, reason = "this test runs an emulator")]

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    time::Instant,
};

use illumos_sim::{
    Ended, Sim,
    boot::{brand, emulated},
    host::Host,
    state::Real,
    zonecfg,
};

use crate::{deadline, prerequisites};

/// What the tiny guest says when it has waited for its seed.
const IN_VAIN: &str = "no seed disk with helios.json";

/// The emulator's command line for a zone with this disk beside the one it boots from.
fn command(sim: &Sim, zone: &str, disk: &str, kernel: &Path) -> Vec<String> {
    let attr =
        |name: &str, value: &str| format!(" ; add attr ; set name={name} ; set type=string ; set value={value} ; end");
    let attrs = [("bootdisk", "golden"), (disk, "/seed.img"), ("ram", "256M")].map(|(n, v)| attr(n, v));
    let script = format!("create -b ; set brand=bhyve ; set zonepath=/{zone}{}", attrs.concat());
    let ended = sim.run("zonecfg", &["-z", zone, &script]).unwrap();
    assert!(matches!(&ended, Ended::Exit(out) if out.code == 0), "{ended:?}");
    let root = sim.root().join(zone).join("root");
    std::fs::create_dir_all(&root).unwrap();
    std::fs::write(root.join("seed.img"), vec![0; 1 << 20]).unwrap();
    let ask = |host: &mut Host| {
        // For this question only: the kernel's network is not to follow.
        host.state.real = Some(Real {
            kernel: kernel.join("vmlinuz"),
            initrd: kernel.join("initrd.img"),
            cmdline: "console=ttyS0 panic=-1".into(),
        });
        let config = zonecfg::load(host, zone).unwrap().unwrap();
        let argv = emulated::command(host, &brand::machine(host, &config).unwrap());
        host.state.real = None;
        argv.unwrap()
    };
    sim.mutate(ask).unwrap()
}

/// All that a guest says until it gives up on its seed.
fn console(argv: &[String]) -> String {
    let mut child = Command::new("qemu-system-x86_64")
        .args(argv)
        // Both guests have one disk, and neither keeps what it writes.
        .args(["-snapshot", "-serial", "stdio"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (send, lines) = mpsc::channel();
    let screen = BufReader::new(child.stdout.take().unwrap());
    let reader = std::thread::spawn(move || {
        for line in screen.split(b'\n').map_while(Result::ok) {
            send.send(String::from_utf8_lossy(&line).into_owned()).ok();
        }
    });
    let (until, mut said) = (Instant::now() + deadline::GUEST, String::new());
    while !said.contains(IN_VAIN) {
        match lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(line) => said += &format!("{line}\n"),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();
    reader.join().unwrap();
    said
}

#[test]
fn a_slot_without_its_first_function_is_not_looked_into() {
    let Some(guest) = prerequisites::needs_guest() else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let sim = Sim::create(&dir.path().join("host")).unwrap();
    let converted = Command::new("qemu-img")
        .args(["convert", "-O", "raw"])
        .arg(guest.join("disk.qcow2"))
        .arg(sim.root().join("dev/zvol/rdsk/golden"))
        .status();
    assert!(converted.unwrap().success());
    let [first, second] = ["disk0", "disk1"].map(|disk| command(&sim, disk, disk, &guest));
    let (first, second) = std::thread::scope(|scope| {
        let [first, second] = [&first, &second].map(|argv| scope.spawn(|| console(argv)));
        (first.join().unwrap(), second.join().unwrap())
    });
    for (said, sees) in [(&first, true), (&second, false)] {
        // Each has found the disk that it boots from, and came up.
        assert!(said.contains("[vda]") && said.contains(IN_VAIN), "{said}");
        assert_eq!(said.contains("[vdb]"), sees, "{said}");
        assert_eq!(said.contains("pci 0000:00:05."), sees, "{said}");
    }
}
