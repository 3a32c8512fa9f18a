//! How many trivial jobs a second are done on two machines: as runs of their own, and as jobs of one run; with nothing
//! else to do, and with others waiting. The queue gives a turn to each repository, so beside a backlog every second job is
//! one of it, and all that ended are counted.

use std::time::Duration;

use futures::{StreamExt as _, stream};
use serde_json::json;

use crate::{
    api::{self, Api, id, now_ms},
    backlog::{Backlog, of_jobs},
    process,
    support::{Machines, World},
    table::{Goal, MS, Row, Table, Unit},
};

const ROUNDS: usize = 3;
const COUNT: usize = 100;
/// So many wait when few do: as many as are taken beside those that are measured, and some.
const FEW: usize = 2 * COUNT;
/// Between two looks at what has ended.
const GLANCE: Duration = Duration::from_millis(100);
/// So many runs are asked for at once.
const AT_ONCE: usize = 8;
/// The longest that is measured; on a slow daemon what ended by then is counted.
const MOST: Duration = Duration::from_secs(20);
const RATE: Unit = Unit("jobs/s");

/// One daemon with its backlog, stopped between two measurements.
struct Lab {
    world: World,
    backlog: Backlog,
    /// So many wait when a measurement begins.
    waiting: usize,
    /// The run of many jobs.
    large: String,
}

/// What one kind of work made with one backlog.
#[derive(Default)]
struct Figures {
    rates: Vec<f64>,
    /// Milliseconds of processors for a job.
    cpu: Vec<f64>,
}

impl Lab {
    async fn new(waiting: usize) -> Self {
        let mut world = api::start(Machines::Process, "capacity: {machines: 2}\n").await;
        let files = [
            (".forgejo/workflows/one.yml", of_jobs("one", 1).into_bytes(), 0o644),
            (
                ".forgejo/workflows/large.yml",
                of_jobs("large", COUNT).into_bytes(),
                0o644,
            ),
        ];
        let pushed = world.forge.push(world.repository, "main", &files, "Queue").await;
        let sha = pushed.expect("a push");
        let large = Api::of(&world).planned(&world, &sha, "large").await;
        world.wait(&sha, "success").await;
        world.wait_clean();
        world.down();
        let backlog = Backlog::new(&world).await;
        Self {
            world,
            backlog,
            waiting,
            large,
        }
    }

    /// Runs of one job each, asked for through the API.
    async fn separate(&mut self, figures: &mut Figures) {
        let body = json!({"connection": "local", "repository": "ada/engine", "ref": "main", "workflow": "one"});
        self.measure(figures, async |api, _| {
            let asked = stream::iter(0..COUNT).map(|_| api.post("/api/v1/builds", &body));
            asked.buffer_unordered(AT_ONCE).for_each(async |_| ()).await;
        })
        .await;
    }

    /// One run of many jobs.
    async fn together(&mut self, figures: &mut Figures) {
        self.measure(figures, async |api, large| {
            api.rerun(large).await;
        })
        .await;
    }

    /// Counts the jobs that end from `ask` on, until those that it asks for have.
    async fn measure(&mut self, figures: &mut Figures, ask: impl AsyncFnOnce(&Api, &str)) {
        let left = self.world.rows("jobs WHERE state = 'queued'");
        let left = usize::try_from(left).expect("a count");
        self.backlog.add(&self.world, self.waiting.saturating_sub(left)).await;
        api::up(&mut self.world);
        let (api, pid) = (Api::of(&self.world), self.world.pid());
        let (begun, cpu) = (now_ms(), process::cpu_ms(pid));
        ask(&api, &self.large).await;
        while self.ended(begun, true).0 < COUNT as f64 && now_ms() - begun < MOST.as_secs_f64() * 1000.0 {
            tokio::time::sleep(GLANCE).await;
        }
        let cpu = process::cpu_ms(pid) - cpu;
        let (count, last) = self.ended(begun, false);
        figures.rates.push(count / (last - begun) * 1000.0);
        figures.cpu.push(cpu / count);
        self.end_the_rest(&api).await;
        self.world.down();
    }

    /// How many jobs ended since then, of all or of the measured repository, and when the last did.
    fn ended(&self, since: f64, ours: bool) -> (f64, f64) {
        let repository = if ours {
            self.world.repository.to_string()
        } else {
            "%".to_owned()
        };
        let found = self.world.text(&format!(
            "SELECT COUNT(*), COALESCE(MAX(a.ended_ms), 0) FROM attempts a JOIN jobs j ON j.id = a.job_id
             WHERE a.ended_ms >= {since:.0} AND j.repository_id LIKE '{repository}'"
        ));
        let (count, last) = found.split_once('|').expect("two columns");
        (count.parse().expect("a count"), last.parse().expect("a time"))
    }

    /// What a slow daemon has not done is not to be done in the next measurement.
    async fn end_the_rest(&self, api: &Api) {
        loop {
            let active = api
                .get("/api/v1/runs?repository=ada/engine&state=active&limit=100")
                .await;
            let active = active["runs"].as_array().expect("runs").clone();
            let unplanned = self
                .world
                .text("SELECT COUNT(*) FROM triggers WHERE state = 'received'");
            if active.is_empty() && unplanned == "0" {
                return;
            }
            for run in active {
                api.post(&format!("/api/v1/runs/{}/cancel", id(&run)), &json!({})).await;
            }
            tokio::time::sleep(GLANCE).await;
        }
    }
}

pub async fn rates(table: &mut Table) {
    let mut labs = Vec::new();
    for waiting in [0, FEW, 10_000, 100_000] {
        labs.push((Lab::new(waiting).await, Figures::default(), Figures::default()));
    }
    for _ in 0..ROUNDS {
        for (lab, separate, together) in &mut labs {
            lab.separate(separate).await;
            lab.together(together).await;
        }
    }
    let mut labs = labs.into_iter().map(|(_, separate, together)| (separate, together));
    let mut next = || labs.next().expect("four of them");
    let (alone, few, deep, deeper) = (next(), next(), next(), next());
    const CPU: &str = "processors' time for one of them, daemon and what it starts";
    table.push(Row::new("100 separate runs of one job, two machines", RATE, alone.0.rates).goal(Goal::AtLeast(40.0)));
    table.push(Row::new(CPU, MS, alone.0.cpu).goal(Goal::AtMost(20.0)));
    table.push(Row::new("one run of 100 jobs, two machines", RATE, alone.1.rates).goal(Goal::AtLeast(50.0)));
    for (waiting, (separate, together)) in [("10 000", deep), ("100 000", deeper)] {
        for (what, figures, few) in [
            ("100 separate runs", separate, &few.0),
            ("one run of 100 jobs", together, &few.1),
        ] {
            table.push(
                Row::new(format!("{what}, {waiting} other jobs waiting"), RATE, figures.rates)
                    .beside("with 200 waiting", few.rates.clone())
                    .goal_of_ratio(Goal::AtLeast(0.9)),
            );
        }
    }
}
