//! The same from an emulated guest. What its kernel and shell take there is the emulator's.

use std::{fs, time::UNIX_EPOCH};

use crate::{
    api::{self, Api, TRIVIAL, id, ms},
    flood::LINES,
    latency::{middle, stages},
    support::{self, Machines, World},
    table::{Goal, MS, Row, Table, Unit},
};

const TRIES: usize = 5;
const FLOODS: usize = 3;
const RATE: Unit = Unit("k lines/s");

pub async fn emulated(table: &mut Table) {
    if support::guest().is_none() {
        eprintln!("no guest: `make guest` builds it, HELIOS_CI_GUEST names it");
        return;
    }
    latency(table).await;
    flood(table).await;
}

/// When the machine's emulator was started: then it wrote this file.
fn started(world: &World) -> Option<f64> {
    let machine = fs::read_dir(world.data().join("machines")).ok()?.flatten().next()?;
    let time = machine.path().join("run.json").metadata().ok()?.modified().ok()?;
    Some(time.duration_since(UNIX_EPOCH).ok()?.as_secs_f64() * 1000.0)
}

async fn latency(table: &mut Table) {
    let world = api::start(Machines::Qemu, "").await;
    let api = Api::of(&world);
    let sha = world.push(TRIVIAL).await;
    let run = api.planned(&world, &sha, "ci").await;
    let (mut runs, mut all) = (vec![], vec![]);
    for _ in 0..TRIES {
        world.wait_clean();
        let jobs = api.rerun(&run).await;
        let started = world.until("its machine", || started(&world));
        let job = api.ended(&jobs[0]).await;
        runs.push(started - ms(&job["queued"]));
        all.push(stages(&api, &job).await);
    }
    let exec = middle(&all, |s| s.exec);
    let whole = all.iter().map(|s| s.whole).collect();
    table.push(Row::new("queued → its QEMU runs, emulated guest", MS, runs).goal(Goal::AtMost(50.0)));
    table.push(
        Row::new("queued → first line written, emulated guest", MS, whole)
            .remark(format!("agent's hello → line {exec:.0} ms, the guest's shell")),
    );
}

/// The file is made in the guest; then its own pipe and the log take it by turns.
async fn flood(table: &mut Table) {
    let world = api::start(Machines::Qemu, "limits: {log_bytes: 1GiB}\n").await;
    let api = Api::of(&world);
    let mut workflow = "\
name: ci
on: push
jobs:
  job:
    steps:
      - run: |
          awk 'BEGIN { for (i = 0; i < 1000; i++) printf \"%8d Compiling crate-%07x of many, and some more words\\n\", i, i * 7919 }' >block
          n=0; until [ $n = 1000 ]; do cat block; n=$((n + 1)); done >lines
          test \"$(wc -c <lines)\" = 62000000
"
    .to_owned();
    for _ in 0..FLOODS {
        workflow += "      - run: cat lines | cat >/dev/null\n      - run: cat lines\n";
    }
    let sha = world.push(&workflow).await;
    let run = api.planned(&world, &sha, "ci").await;
    let job = api.job(&api.newest_jobs(&run).await[0]).await;
    let steps = job["steps"].as_array().expect("steps");
    assert_eq!(steps.len(), 1 + 2 * FLOODS, "{}", id(&job));
    let rates = |first: usize| -> Vec<f64> {
        let steps = steps.iter().skip(first).step_by(2);
        let ms = steps.map(|step| ms(&step["ended"]) - ms(&step["started"]));
        ms.map(|ms| LINES as f64 / ms).collect()
    };
    table.push(
        Row::new("1 M lines of 62 bytes from an emulated guest", RATE, rates(2))
            .beside("the guest's own pipe", rates(1))
            .goal(Goal::AtLeast(250.0)),
    );
}
