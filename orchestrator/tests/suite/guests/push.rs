//! A whole installation on a zone host: a forge, a daemon, machined as a process of its own, and real guests.

use std::{
    fs,
    process::{Child, Command, Stdio},
};

use super::{
    real_guests::{self, left},
    support::{Machines, World, hold, spine::a_push_is_tested},
};

/// What zones need beside the images.
const EXTRA: &str = "zone: {path: /mnt/hci}\nmachined: {socket: /run/machined.sock, user: root}\n";

/// Where every machined of a test writes.
const LOG: &str = "/run/machined.log";

/// Says how far it has come, for ever, and writes nothing to its disk.
pub const STEADY: &str = "name: steady\non: push\njobs:\n  steady:\n    steps:\n      - run: |\n          \
    n=0; while true; do n=$((n + 1)); echo \"tick $n\"; sleep 0.2; done\n";

/// How far a job of [`STEADY`] has come.
pub fn ticks(world: &World, job: &str) -> usize {
    world.log_now(job).matches("tick ").count()
}

/// A machined that is killed when the test ends.
pub struct Keeper(Child);

impl Keeper {
    /// `kill -9`.
    pub fn killed(mut self) {
        self.0.kill().expect("it runs");
        self.0.wait().expect("it is gone");
    }

    /// Starts it and waits until it is ready: before, it may wait for commands of the one before, and longer than a
    /// daemon waits for it.
    pub fn start(mut command: Command) -> Self {
        let ready = || {
            let said = fs::read_to_string(LOG).unwrap_or_default();
            said.matches("machined is ready").count()
        };
        let before = ready();
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(LOG)
            .expect("a log");
        command.env("RUST_LOG", "info,helios_ci=debug").stdin(Stdio::null());
        let mut started = Self(command.stdout(Stdio::null()).stderr(log).spawn().expect("machined"));
        hold::until("machined is ready", || {
            assert_eq!(started.0.try_wait().expect("its state"), None, "machined has ended");
            ready() > before
        });
        started
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
        if std::thread::panicking() {
            eprintln!("machined: {}", fs::read_to_string(LOG).unwrap_or_default());
        }
    }
}

pub async fn world(more: &str) -> (World, Keeper) {
    world_with(more, |text| text).await
}

/// With the configuration's file as `change` makes it.
pub async fn world_with(more: &str, change: impl FnOnce(String) -> String) -> (World, Keeper) {
    real_guests::begin();
    let mut world = World::stopped(Machines::Zone, &format!("{EXTRA}{more}")).await;
    let text = fs::read_to_string(world.config()).expect("the configuration");
    fs::write(world.config(), change(text)).expect("the configuration");
    let keeper = Keeper::start(world.command(&["machined"]));
    world.up();
    (world, keeper)
}

/// Every machine is gone from the daemon's books, from the host, from its kernel.
pub fn nothing_left(world: &World, keeper: Keeper) {
    world.until("the machines are gone", || {
        (world.rows("machines WHERE state <> 'gone'") == 0).then_some(())
    });
    // It is of the daemon's program too.
    drop(keeper);
    world.nothing_left();
    assert_eq!(left(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run inside a simulated host by zones_with_real_guests"]
async fn a_push_is_tested_in_zones_that_machined_keeps() {
    let (world, keeper) = world("").await;
    let world = a_push_is_tested(world).await;
    nothing_left(&world, keeper);
}

/// bhyve is started again in place, but what the agent was about is over: the node does not take it back, and
/// an attempt without an agent ends.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "run inside a simulated host by zones_with_real_guests"]
async fn a_job_that_reboots_its_guest_ends_and_says_why() {
    let (world, keeper) = world("limits: {infra_tries: 1}\n").await;
    let sha = world
        .push("name: ci\non: push\njobs:\n  turn:\n    steps:\n      - run: reboot -f\n      - run: echo unreached\n")
        .await;
    let job = world.wait_job(&sha, "turn", "error");
    let detail = world.detail(job["id"].as_str().expect("an id"));
    let cause = detail["attempts"][0]["cause"].as_str().unwrap_or_default();
    assert!(
        cause.starts_with("the guest rebooted, or its agent was started again"),
        "{detail:#}"
    );
    assert_eq!(real_guests::boots(), 1, "the zone was booted once");
    nothing_left(&world, keeper);
}
