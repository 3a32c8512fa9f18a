//! Many jobs that wait, of another repository than the one that is measured: written by the daemon's own store while the
//! daemon is stopped, as if they had been planned and reported long ago.

use std::{process::Command, time::Duration};

use helios_ci::{
    config::{Config, LoadOptions},
    model::{
        names::ForgeContext,
        plan::Plan,
        trigger::{Event, Repository, Trigger},
    },
    store::{JobRequirement, NewRun, PlannedRun, Store, TriggerOutcome},
    workflow::{self, Defaults},
};
use helios_fakeforge::Kind;

use crate::support::World;

/// Jobs of one run, and runs of one commit.
const JOBS: usize = 100;
const RUNS: usize = 10;
const LEASE: Duration = Duration::from_secs(600);

/// A repository whose jobs wait.
pub struct Backlog {
    id: i64,
    commits: usize,
}

impl Backlog {
    pub async fn new(world: &World) -> Self {
        let id = world.forge.create_repository(Kind::Forgejo, "ada/backlog", false).await;
        Self {
            id: id.expect("a repository"),
            commits: 0,
        }
    }

    /// Adds jobs in the queue; how many are asked for, or some more.
    pub async fn add(&mut self, world: &World, jobs: usize) {
        if jobs == 0 {
            return;
        }
        let loaded = Config::load(&world.config(), LoadOptions::default()).expect("the configuration");
        let store = Store::open(&loaded.config.database).await.expect("the database");
        let runs = jobs.div_ceil(JOBS);
        for first in (0..runs).step_by(RUNS) {
            self.plan(world, &store, &loaded.config, RUNS.min(runs - first)).await;
        }
        store.close().await;
        // Their first states are known to the forge: what is measured is a queue, not ten thousand reports.
        let told = Command::new("sqlite3")
            .arg(world.data().join("helios-ci.db"))
            .arg("UPDATE reports SET delivered = version")
            .status();
        assert!(told.expect("sqlite3 runs").success(), "the reports cannot be marked");
    }

    /// Runs of one commit that the forge knows.
    async fn plan(&mut self, world: &World, store: &Store, config: &Config, runs: usize) {
        self.commits += 1;
        let readme = format!("number {}\n", self.commits);
        let files = [("README", readme.into_bytes(), 0o644)];
        let commit = world.forge.push(self.id, "main", &files, "Wait").await.expect("a push");
        let commit: helios_ci::model::names::CommitSha = commit.parse().expect("a commit");
        let trigger = Trigger {
            repository: Repository {
                connection: "local".parse().expect("a connection"),
                id: u64::try_from(self.id).expect("an id").into(),
                path: "ada/backlog".parse().expect("a path"),
                context: ForgeContext::default(),
            },
            event: Event::push("refs/heads/main".parse().expect("a ref"), commit.clone(), None),
            actor: "ada".into(),
            title: "Wait".into(),
            payload: None,
        };
        store.create_trigger(&trigger, "bench").await.expect("a trigger");
        let claimed = store.claim_trigger(&config.node, LEASE).await.expect("the database");
        let claimed = claimed.expect("the trigger");
        let runs = (0..runs).map(|number| planned(config, number)).collect();
        let outcome = TriggerOutcome::Planned {
            commit,
            title: "Wait".into(),
            runs,
        };
        let stored = store.finish_trigger(claimed.id, claimed.epoch, outcome).await;
        stored.expect("the database").expect("the trigger is ours");
    }
}

fn planned(config: &Config, number: usize) -> NewRun {
    let path = format!(".forgejo/workflows/wait{number}.yml");
    let source = of_jobs(&format!("wait{number}"), JOBS);
    let defaults = Defaults {
        job_timeout_minutes: config.limits.job_timeout_minutes,
    };
    let plan: Plan = workflow::validate(&path, source.as_bytes(), &defaults).expect("a sound workflow");
    let (label, image) = config.images.first_key_value().expect("an image");
    let requirement = JobRequirement {
        label: label.clone(),
        size: image.size,
        class: Config::class(label, image.size),
    };
    NewRun {
        name: plan.name.clone(),
        path,
        source,
        plan: Ok(PlannedRun {
            jobs: vec![requirement; plan.jobs.len()],
            plan,
        }),
    }
}

/// A workflow of so many trivial jobs.
pub fn of_jobs(name: &str, count: usize) -> String {
    let jobs = (0..count).map(|number| format!("  job{number}:\n    steps:\n      - run: echo first\n"));
    format!("name: {name}\non: push\njobs:\n{}", jobs.collect::<String>())
}
