//! A whole installation on a zone host: a forge, a daemon, machined as a process of its own, and real guests.

use std::{
    fs,
    process::{Child, Stdio},
};

use super::{
    real::{self, left},
    support::{Machines, World, spine::a_push_is_tested},
};

/// What zones need beside the images.
const EXTRA: &str = "zone: {path: /mnt/hci}\nmachined: {socket: /run/machined.sock, user: root}\n";

/// A machined that is killed when the test ends.
struct Keeper(Child);

impl Keeper {
    fn of(world: &World) -> Self {
        let log = fs::File::create("/run/machined.log").expect("a log");
        let mut command = world.command(&["machined"]);
        command.env("RUST_LOG", "info,helios_ci=debug").stdin(Stdio::null());
        Self(command.stdout(Stdio::null()).stderr(log).spawn().expect("machined"))
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
        if std::thread::panicking() {
            eprintln!(
                "machined: {}",
                fs::read_to_string("/run/machined.log").unwrap_or_default()
            );
        }
    }
}

async fn world(more: &str) -> (World, Keeper) {
    real::begin();
    let mut world = World::stopped(Machines::Zone, &format!("{EXTRA}{more}")).await;
    let keeper = Keeper::of(&world);
    world.up();
    (world, keeper)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run inside a simulated host by zones_with_real_guests"]
async fn a_push_is_tested_in_zones_that_machined_keeps() {
    let (world, _keeper) = world("").await;
    let world = a_push_is_tested(world).await;
    world.nothing_left();
    assert_eq!(left(), Vec::<String>::new());
}

/// A guest that restarts itself keeps its disk and its zone: bhyve is started again in place.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "run inside a simulated host by zones_with_real_guests"]
async fn a_job_that_reboots_its_guest_ends_and_says_why() {
    let (world, _keeper) = world("limits: {infra_tries: 1}\n").await;
    let sha = world
        .push("name: ci\non: push\njobs:\n  turn:\n    steps:\n      - run: reboot -f\n      - run: echo unreached\n")
        .await;
    let job = world.until("the job ends", || {
        world
            .jobs(&sha)
            .into_iter()
            .find(|job| !["queued", "active"].contains(&job["state"].as_str().unwrap_or_default()))
    });
    let id = job["id"].as_str().expect("an id");
    println!(
        "DETAIL {:#}\nLOG {}\nDAEMON {}",
        world.detail(id),
        world.log_now(id),
        world.daemon_log()
    );
    world.nothing_left();
    assert_eq!(left(), Vec::<String>::new());
}
