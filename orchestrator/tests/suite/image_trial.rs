//! `helios-ci image verify --boot`: what a person is told of a golden disk before jobs depend on it.

use std::fs;

use crate::support::{self, Machines, World, deadline};

#[tokio::test(flavor = "multi_thread")]
async fn a_golden_disk_is_tried_in_a_machine_of_its_own() {
    let Some(guest) = support::needs_guest() else {
        return;
    };
    let world = World::stopped(Machines::Qemu, "").await;
    let sums = fs::read_to_string(guest.join("SHA256SUMS")).unwrap();
    let digest = sums.lines().find_map(|line| line.strip_suffix("  disk.qcow2")).unwrap();
    let text = fs::read_to_string(world.config()).unwrap();
    let verified = text.replacen("    disk: ", &format!("    sha256: {digest}\n    disk: "), 1);
    assert_ne!(verified, text);
    fs::write(world.config(), &verified).unwrap();
    let output = world.cli(&["image", "verify", "tiny", "--boot"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{said}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    for line in support::WELL {
        assert!(said.contains(line), "no {line:?} in:\n{said}");
    }
    assert_eq!(world.leftovers(), Vec::<String>::new());
    // A disk that does not boot is said to be none: an initrd without the agent's way in.
    let initrd = guest.join("initrd.img").display().to_string();
    let usual = format!("boot_timeout_s: {}\n", deadline::GUEST.as_secs());
    assert!(verified.contains(&usual), "{verified}");
    let broken = verified
        .replace(&initrd, &guest.join("SHA256SUMS").display().to_string())
        .replacen(&usual, "boot_timeout_s: 5\n", 1);
    assert_ne!(broken, verified);
    fs::write(world.config(), broken).unwrap();
    let output = world.cli(&["image", "verify", "tiny", "--boot"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("FAILURE  hello: "), "{said}");
    assert!(
        said.ends_with("tiny: not ready for jobs: 1 of 1 things failed\n"),
        "{said}"
    );
    assert_eq!(world.leftovers(), Vec::<String>::new());
}
