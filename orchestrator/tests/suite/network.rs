//! The network between agent and node breaks and stalls while output flows: every line arrives once,
//! in order, and the job never notices.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    sync::watch,
};

use crate::support::{
    self, Machines, World, agent, deadline, helios_ci,
    hold::{assert_counted, counted, counting, grow, pick, processes, signal, tell},
};

/// How long a cut lasts: it is what is tested, not what a test waits for.
const CUT: Duration = Duration::from_secs(10);

fn id(value: &Value) -> &str {
    value["id"].as_str().expect("an id")
}

/// Counts until its disk grows, the one word that reaches a guest whose network is cut: however slow the machine is on
/// which this is tested, the job goes on until every cut was made.
const COUNTING: &str = "\
name: ci
on: push
jobs:
  count:
    steps:
      - run: |
          size=$(cat /sys/block/vd*/size) i=0
          while [ \"$(cat /sys/block/vd*/size)\" = \"$size\" ]; do
            i=$((i + 1))
            echo \"line $i\"
            sleep 0.02
          done
          echo \"counted $i\"
";

/// Unplugs a guest's network card, or plugs it in again.
fn set_link(machine: &Path, up: bool) {
    tell(
        machine,
        &format!("{{\"execute\": \"set_link\", \"arguments\": {{\"name\": \"net0\", \"up\": {up}}}}}"),
    );
}

/// The relay that carries the agent's connection of a machine. QEMU's own command line names it too.
fn relay(world: &World, machine: &Path) -> i32 {
    let socket = machine.join("agent.sock").display().to_string();
    let is_ours = |pid: &i32| fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|program| program == helios_ci());
    world.until("a relay", || processes(&[" relay ", &socket]).into_iter().find(is_ours))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_is_cut_off_in_mid_output_loses_nothing() {
    if support::needs_guest().is_none() {
        return;
    }
    let world = World::start(Machines::Qemu).await;
    let sha = world.push(COUNTING).await;
    let job = world.wait_job(&sha, "count", "active");
    let job = id(&job);
    world.wait_counted(job, 50);
    let machine = world.machine();

    // The cable is pulled.
    set_link(&machine, false);
    let cut = Instant::now();
    // What was on its way is through when two looks agree.
    let mut early = counted(&world.log_now(job)).len();
    let until = cut + deadline::GUEST;
    loop {
        tokio::time::sleep(CUT / 5).await;
        let now = counted(&world.log_now(job)).len();
        if now == early {
            break;
        }
        assert!(Instant::now() < until, "{now} lines come through a pulled cable");
        early = now;
    }
    tokio::time::sleep(CUT.saturating_sub(cut.elapsed()).max(CUT / 2)).await;
    let late = counted(&world.log_now(job)).len();
    assert_eq!(early, late, "nothing comes through a pulled cable");
    set_link(&machine, true);
    world.wait_counted(job, late + 50);

    // The connection dies.
    let first = relay(&world, &machine);
    signal(first, Signal::SIGKILL);
    let seen = counted(&world.log_now(job)).len();
    world.wait_counted(job, seen + 50);

    // The connection hangs.
    let second = relay(&world, &machine);
    assert_ne!(first, second);
    signal(second, Signal::SIGSTOP);
    tokio::time::sleep(CUT).await;
    signal(second, Signal::SIGCONT);

    // Enough.
    grow(&machine);
    world.wait_job(&sha, "count", "success");
    let log = world.log(job);
    let last = log.lines().find_map(|line| line.strip_prefix("counted ")?.parse().ok());
    let wanted: Vec<String> = (1..=last.unwrap_or(0)).map(|i: usize| format!("line {i}")).collect();
    assert!(wanted.len() > late + 100, "{} lines after three cuts", wanted.len());
    assert_eq!(counted(&log), wanted, "after three cuts: gaps or repetitions");
    assert_eq!(world.detail(job)["attempts"].as_array().unwrap().len(), 1);
    world.wait(&sha, "success").await;
    world.nothing_left();
}

/// What a line between agent and node does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    Open,
    /// Bytes are taken and not given on.
    Stalled,
    /// Connections break, and new ones do too.
    Cut,
}

/// A line that carries what comes to `far.sock` to the daemon's socket in the same directory.
async fn proxy(machine: PathBuf, line: watch::Receiver<Line>) {
    let listener = UnixListener::bind(machine.join("far.sock")).expect("the proxy's socket");
    loop {
        let Ok((near, _)) = listener.accept().await else { return };
        let Ok(far) = UnixStream::connect(machine.join("agent.sock")).await else {
            continue;
        };
        let (near_read, near_write) = near.into_split();
        let (far_read, far_write) = far.into_split();
        let (there, back) = (line.clone(), line.clone());
        tokio::spawn(async move {
            // When either way ends, both do.
            tokio::select! {
                () = carry(near_read, far_write, there) => {}
                () = carry(far_read, near_write, back) => {}
            }
        });
    }
}

async fn carry(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    mut line: watch::Receiver<Line>,
) {
    // Small and odd, so that frames are torn.
    let mut block = vec![0; 1021];
    loop {
        let mut cut = line.clone();
        let read = tokio::select! {
            read = from.read(&mut block) => read.unwrap_or(0),
            _ = cut.wait_for(|line| *line == Line::Cut) => 0,
        };
        let passes = line.wait_for(|line| *line != Line::Stalled).await.map(|line| *line);
        if read == 0 || passes.is_err() || passes.is_ok_and(|line| line == Line::Cut) {
            return;
        }
        if to.write_all(&block[..read]).await.is_err() {
            return;
        }
    }
}

/// An agent that dials `far.sock` where the seed says `agent.sock`.
fn far_agent(world: &World) -> PathBuf {
    let path = world.dir.path().join("far-agent");
    let script = format!(
        "#!/bin/sh\nsed -i 's#/agent\\.sock#/far.sock#' \"$2/helios.json\"\nexec {} \"$@\"\n",
        agent().display()
    );
    support::write_program(&path, &script);
    path
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_breaks_and_stalls_at_random_loses_nothing() {
    const LINES: usize = 600;
    for seed in [11_u64, 12, 13] {
        let mut random = seed;
        let mut world = World::stopped(Machines::Process, "").await;
        let far = far_agent(&world);
        world.reconfigure(|text| {
            text.replace(
                &format!("agent: {}\n", agent().display()),
                &format!("agent: {}\n", far.display()),
            )
        });
        world.up();
        let sha = world.push(&counting(LINES, "0.01")).await;
        let job = world.wait_job(&sha, "count", "active");
        let machine = world.machine();
        let (line, watched) = watch::channel(Line::Open);
        let proxy = tokio::spawn(proxy(machine, watched));
        world.wait_counted(id(&job), 1);
        let (mut breaks, mut long) = (0, Some(CUT));
        while world.jobs(&sha).iter().any(|job| job["state"] == "active") {
            let state = if pick(&mut random, 2) == 0 {
                Line::Cut
            } else {
                Line::Stalled
            };
            line.send_replace(state);
            breaks += 1;
            // One cut is long, with the job still writing.
            let length = long
                .take()
                .unwrap_or_else(|| Duration::from_millis(pick(&mut random, 400)));
            tokio::time::sleep(length).await;
            line.send_replace(Line::Open);
            tokio::time::sleep(Duration::from_millis(pick(&mut random, 700))).await;
        }
        world.wait_job(&sha, "count", "success");
        let what = format!("seed {seed}, {breaks} breaks");
        assert_counted(&world.log(id(&job)), LINES, &what);
        assert_eq!(
            world.detail(id(&job))["attempts"].as_array().unwrap().len(),
            1,
            "{what}"
        );
        proxy.abort();
        world.nothing_left();
    }
}
