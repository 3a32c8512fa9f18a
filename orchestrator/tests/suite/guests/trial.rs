//! `helios-ci image verify --boot` on a zone host.

use std::{fs, process::Output};

use super::{
    push::{STEADY, nothing_left, ticks, world},
    real_guests::{boots, left},
    support::{self, World},
};

/// Where the program may make its folders; short, as paths of sockets are.
const FOLDERS: &str = "/run/tmp";

fn verify(world: &World) -> Output {
    fs::create_dir_all(FOLDERS).unwrap();
    let mut command = world.command(&["image", "verify", "tiny", "--boot"]);
    command.env("TMPDIR", FOLDERS).output().unwrap()
}

/// What it said, however its lines were broken.
fn words(said: &[u8]) -> String {
    let said = String::from_utf8_lossy(said).replace('│', " ");
    said.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The disk is tried and found well, and nothing of the trial stays.
fn is_well(world: &World) {
    let before = (left(), boots());
    let output = verify(world);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}\n{}", words(&output.stderr));
    for line in ["tiny: ok, version 1, sha256 "].iter().chain(&support::WELL) {
        assert!(said.contains(line), "no {line:?} in:\n{said}");
    }
    assert_eq!((left(), boots()), (before.0, before.1 + 1), "{said}");
    assert_eq!(fs::read_dir(FOLDERS).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run inside a simulated host by zones_with_real_guests"]
async fn a_golden_disk_is_tried_by_machined_beside_the_machines_of_jobs() {
    let (mut world, keeper) = world("").await;
    let sha = world.push(STEADY).await;
    let job = world.wait_job(&sha, "steady", "active");
    let job = job["id"].as_str().unwrap();
    world.until("the job works", || (ticks(&world, job) > 0).then_some(()));

    // The daemon would take the trial's machine for one that a job left behind.
    let before = (left(), boots());
    let refused = verify(&world);
    let said = words(&refused.stderr);
    assert!(!refused.status.success(), "{said}");
    assert!(
        said.contains("the daemon runs") && said.contains("svcadm disable -t helios-ci"),
        "{said}"
    );
    assert_eq!((left(), boots()), before);
    assert_eq!(fs::read_dir(FOLDERS).unwrap().count(), 0);

    // The trial does not take the job's machine for its own either.
    assert_eq!(world.down(), Some(0));
    is_well(&world);
    world.up();
    let so_far = ticks(&world, job);
    world.until("the job goes on", || (ticks(&world, job) > so_far).then_some(()));
    let detail = world.detail(job);
    assert_eq!(detail["attempts"].as_array().unwrap().len(), 1, "{detail:#}");
    assert!(world.cli(&["cancel", job]).status.success());
    nothing_left(&world, keeper);

    // Neither runs, and the socket of a machined that was killed is still there: one that comes up must not meet
    // another that keeps machines.
    assert_eq!(world.down(), Some(0));
    assert!(fs::exists("/run/machined.sock").unwrap());
    let before = boots();
    let refused = verify(&world);
    let said = words(&refused.stderr);
    assert!(
        !refused.status.success() && said.contains("svcadm enable helios-ci/machined"),
        "{said}"
    );
    assert_eq!((left(), boots()), (Vec::<String>::new(), before));
    assert_eq!(fs::read_dir(FOLDERS).unwrap().count(), 0);
}
