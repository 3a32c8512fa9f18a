//! From the job in the queue to its first line, and where the time goes.

use std::time::Duration;

use serde_json::Value;

use crate::{
    api::{self, Api, TRIVIAL, ms},
    support::Machines,
    table::{Goal, MS, Row, Table, percentile},
};

const TRIES: usize = 40;
/// Whoever looks takes the processor from what is measured: a job of one line is long done by then.
const DONE: Duration = Duration::from_millis(400);

/// The times of one job, in milliseconds.
pub struct Stages {
    pub claim: f64,
    pub hello: f64,
    pub exec: f64,
    pub whole: f64,
}

/// Read after its end.
pub async fn stages(api: &Api, job: &Value) -> Stages {
    let attempt = &job["attempts"][0];
    let (queued, created, running) = (ms(&job["queued"]), ms(&attempt["created"]), ms(&attempt["running"]));
    let line = api.first_line(api::id(job)).await;
    Stages {
        claim: created - queued,
        hello: running - created,
        exec: line - running,
        whole: line - queued,
    }
}

/// The median of one stage.
pub fn middle(all: &[Stages], stage: impl Fn(&Stages) -> f64) -> f64 {
    percentile(&all.iter().map(stage).collect::<Vec<_>>(), 0.5)
}

pub async fn process(table: &mut Table) {
    let world = api::start(Machines::Process, "").await;
    let api = Api::of(&world);
    let sha = world.push(TRIVIAL).await;
    let run = api.planned(&world, &sha, "ci").await;
    let mut all = Vec::new();
    for _ in 0..TRIES {
        world.wait_clean();
        let jobs = api.rerun(&run).await;
        tokio::time::sleep(DONE).await;
        let job = api.ended(&jobs[0]).await;
        all.push(stages(&api, &job).await);
    }
    let stages = format!(
        "claim {:.0}, machine and agent {:.0}, step {:.0} ms",
        middle(&all, |s| s.claim),
        middle(&all, |s| s.hello),
        middle(&all, |s| s.exec)
    );
    let whole = all.iter().map(|s| s.whole).collect();
    table.push(
        Row::new("queued → first line written, process machine", MS, whole)
            .goal(Goal::AtMost(15.0))
            .remark(stages),
    );
}
