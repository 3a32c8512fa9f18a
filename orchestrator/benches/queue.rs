//! How long the store takes for one job's whole life, from the look at the queue to its delivered reports, with ten, ten
//! thousand and a hundred thousand others waiting. The ratio is what counts: it is 1 when no statement reads what waits.
//! Beside it stands the same file system's `fdatasync`, of which a life takes a dozen.
//!
//! `cargo bench -p helios-ci --bench queue [-- <lives>]`

use std::{
    fs,
    io::Write as _,
    path::Path,
    time::{Duration, Instant},
};

use helios_ci::{
    config::Database,
    model::{
        ids::InstanceId,
        names::{MachineName, NodeName},
        plan::{Action, Condition, PLAN_VERSION, Plan, PlanSpan, PlannedJob, PlannedStep, Shell, Template},
        size::Size,
        state::{JobResult, MachineState},
        trigger::{Event, Repository, Trigger},
    },
    store::{
        AttemptEnd, AttemptNews, JobRequirement, MachineUse, NewRun, PlannedRun, ReportStates, Store, TriggerOutcome,
    },
};
use sqlx::{ConnectOptions as _, Connection as _, sqlite::SqliteConnectOptions};

const LEASE: Duration = Duration::from_secs(60);
const QUEUED: [u32; 3] = [10, 10_000, 100_000];
/// Repositories that the waiting jobs belong to.
const REPOSITORIES: u32 = 100;
/// Each depth is measured in so many parts, by turns, so that what else the machine does meanwhile is in all of them.
const ROUNDS: usize = 5;

/// Copies of the only run, its trigger, job and report, each of a commit of its own, as if they had been pushed before it.
/// Ids are digits, which are valid in them.
const FILL: &str = "
    CREATE TEMP TABLE n AS WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {count}) SELECT n FROM n;
    INSERT INTO triggers (id, connection, repository_id, body, by_whom, state, created_ms, due_ms, ref_name, claimed_sha, commit_sha)
        SELECT printf('00000000000000000%09d', n), connection, n % {repositories}, body, by_whom, state, created_ms, due_ms,
            ref_name, printf('%040x', n), printf('%040x', n) FROM n, triggers WHERE triggers.seq = 1;
    INSERT INTO runs (id, trigger_id, connection, repository_id, repository_path, forge_context, ref_name, commit_sha, title,
            actor, event, path, name, source, plan, plan_version, plan_digest, diagnostics, created_ms, attempt)
        SELECT printf('00000000000000000%09d', n), printf('00000000000000000%09d', n), connection, n % {repositories},
            repository_path, forge_context, ref_name, printf('%040x', n), title, actor, event, path, name, source, plan,
            plan_version, plan_digest, diagnostics, created_ms, attempt FROM n, runs WHERE runs.rowid = 1;
    INSERT INTO run_attempts (run_id, number, state, by_whom, created_ms)
        SELECT printf('00000000000000000%09d', n), number, state, by_whom, created_ms
        FROM n, run_attempts WHERE run_attempts.rowid = 1;
    INSERT INTO jobs (id, run_id, run_attempt, place, job_key, name, check_name, needs, label, cpus, memory_mib, class,
            connection, repository_id, state, created_ms, queued_ms)
        SELECT printf('00000000000000000%09d', n), printf('00000000000000000%09d', n), run_attempt, place, job_key, name,
            check_name, needs, label, cpus, memory_mib, class, connection, n % {repositories}, state, created_ms, queued_ms
        FROM n, jobs WHERE jobs.seq = 1;
    INSERT INTO reports (id, connection, repository_id, repository_path, forge_context, commit_sha, name, generation, state,
            title, summary, run_id, job_id, version, since_version, due_ms)
        SELECT printf('00000000000000000%09d', n), connection, n % {repositories}, repository_path, forge_context,
            printf('%040x', n), name, generation, state, title, summary, printf('00000000000000000%09d', n),
            printf('00000000000000000%09d', n), version, since_version, due_ms
        FROM n, reports WHERE reports.rowid = 1;
    DELETE FROM turn;
    INSERT INTO turn (class, connection, repository_id, since_ms, queued)
        SELECT class, connection, repository_id, 1, COUNT(*) FROM jobs WHERE state = 'queued' GROUP BY 1, 2, 3;";

fn trigger() -> Trigger {
    Trigger {
        repository: Repository {
            connection: "forge".parse().expect("a name"),
            id: 0.into(),
            path: "owner/repo".parse().expect("a path"),
            context: 7.into(),
        },
        event: Event::push(
            "refs/heads/main".parse().expect("a ref"),
            "ab".repeat(20).parse().expect("a commit"),
            None,
        ),
        actor: "ann".into(),
        title: "Mend it".into(),
        payload: None,
    }
}

fn planned() -> NewRun {
    let step = PlannedStep {
        id: None,
        span: PlanSpan::at(1, 1),
        name: Template::default_of("true".into()),
        condition: Template::default_of(Condition::Success),
        action: Action::Run {
            script: Template::default_of("true".into()),
            shell: Template::default_of(Shell::Default),
            working_directory: None,
        },
        env: Vec::new(),
        timeout_minutes: None,
        continue_on_error: Template::default_of(false),
    };
    let job = PlannedJob {
        id: "job".into(),
        span: PlanSpan::at(1, 1),
        name: Template::default_of("job".into()),
        condition: Template::default_of(Condition::Success),
        strategy: None,
        runs_on: Vec::new(),
        needs: Vec::new(),
        env: Vec::new(),
        timeout_minutes: Template::default_of(360),
        outputs: Vec::new(),
        call: None,
        steps: vec![step],
    };
    let size = Size {
        cpus: 1,
        memory_mib: 512,
        disk_gib: None,
    };
    NewRun {
        path: ".helios/workflows/ci.yml".into(),
        name: "ci".into(),
        source: "jobs:\n".into(),
        plan: Ok(PlannedRun {
            plan: Plan {
                version: PLAN_VERSION,
                path: ".helios/workflows/ci.yml".into(),
                name: "ci".into(),
                env: Vec::new(),
                jobs: vec![job],
            },
            jobs: vec![JobRequirement {
                label: "tiny".parse().expect("a label"),
                size,
                class: "0123456789abcdef".into(),
            }],
        }),
    }
}

struct Queue {
    store: Store,
    node: NodeName,
    instance: InstanceId,
    took: Vec<Duration>,
}

impl Queue {
    /// A database with so many jobs in the queue.
    async fn of(folder: &Path, count: u32) -> Self {
        let path = folder.join(format!("{count}.db"));
        let (node, instance): (NodeName, _) = ("node".parse().expect("a name"), InstanceId::new());
        let store = Store::open(&Database::Sqlite(path.clone())).await.expect("a store");
        store.create_trigger(&trigger(), "ann").await.expect("a trigger");
        let claimed = store.claim_trigger(&node, LEASE).await.expect("a claim").expect("it");
        let outcome = TriggerOutcome::Planned {
            commit: "ab".repeat(20).parse().expect("a commit"),
            title: "Mend it".into(),
            runs: vec![planned()],
        };
        let runs = store.finish_trigger(claimed.id, claimed.epoch, outcome).await;
        assert_eq!(runs.expect("a run").map(|runs| runs.len()), Some(1));
        store.close().await;
        let fill = FILL.replace("{count}", &count.to_string());
        let fill = fill.replace("{repositories}", &REPOSITORIES.to_string());
        let mut connection = SqliteConnectOptions::new()
            .filename(&path)
            .connect()
            .await
            .expect("a file");
        let filled = sqlx::raw_sql(sqlx::AssertSqlSafe(fill)).execute(&mut connection).await;
        filled.expect("its rows");
        connection.close().await.expect("its end");
        let store = Store::open(&Database::Sqlite(path)).await.expect("a store");
        store.register_node(&node, instance, LEASE).await.expect("a node");
        Self {
            store,
            node,
            instance,
            took: Vec::new(),
        }
    }

    /// Everything that the daemon asks the store about one job, as on a node with one machine.
    async fn one_life(&mut self) {
        let began = Instant::now();
        let (store, node) = (&self.store, &self.node);
        assert!(store.node_usage(node).await.expect("machines").is_empty());
        let classes = store.queued_classes().await.expect("classes");
        assert_eq!(store.overdue_removal(node, LEASE).await.expect("none"), None);
        let one = move |used: &[MachineUse]| match used {
            [] => classes.iter().map(|class| class.class.clone()).collect(),
            _ => Vec::new(),
        };
        let claimed = store.claim_jobs(node, self.instance, Vec::new(), one).await;
        let attempt = claimed.expect("a claim").pop().expect("a job");
        let (id, epoch) = (attempt.id, attempt.epoch);
        store.job(attempt.job).await.expect("its plan").expect("its plan");
        assert!(store.set_join_token(id, epoch, &[1; 32]).await.expect("a token"));
        store.join(id, &[1; 32], &[2; 32]).await.expect("an agent");
        let begin = AttemptNews {
            running: Some("{}".to_owned()),
            ..AttemptNews::default()
        };
        assert!(store.attempt_news(id, epoch, begin).await.expect("a begin"));
        assert!(store.checkpoint(id, epoch, &[3; 2048]).await.expect("a checkpoint"));
        assert!(store.attempt_finishing(id, epoch).await.expect("a result"));
        let (result, message) = (JobResult::Success, String::new());
        let end = AttemptEnd::Result { result, message };
        store.end_attempt(id, epoch, end, 3).await.expect("an end");
        let gone = store.machine_state(&MachineName::of(id), MachineState::Gone).await;
        assert!(gone.expect("no machine"));
        let (lane, _) = store.report_lanes().await.expect("lanes").pop().expect("a lane");
        for owed in store
            .claim_reports(node, &lane, ReportStates::Final, 2, LEASE)
            .await
            .expect("reports")
        {
            store
                .report_delivered(owed.id, owed.version, None)
                .await
                .expect("a note");
        }
        store.waiting().await.expect("what waits");
        self.took.push(began.elapsed());
    }
}

fn median(values: &mut [Duration]) -> Duration {
    values.sort_unstable();
    values[values.len() / 2]
}

/// What one `fdatasync` after a page takes there.
fn sync(folder: &Path) -> Duration {
    let mut file = fs::File::create(folder.join("floor")).expect("a file");
    let mut took: Vec<Duration> = (0..100)
        .map(|_| {
            file.write_all(&[0; 4096]).expect("a write");
            let began = Instant::now();
            file.sync_data().expect("a sync");
            began.elapsed()
        })
        .collect();
    median(&mut took)
}

#[tokio::main]
async fn main() {
    let lives = std::env::args()
        .skip(1)
        .find_map(|argument| argument.parse().ok())
        .unwrap_or(200);
    let folder = tempfile::tempdir().expect("a folder");
    let mut queues = Vec::new();
    for count in QUEUED {
        // A queue of ten must be as long as it says at its end, too.
        let most = u32::try_from(lives).unwrap_or(u32::MAX);
        queues.push(Queue::of(folder.path(), if count < 100 { count + most } else { count }).await);
    }
    for _ in 0..ROUNDS {
        for queue in &mut queues {
            for _ in 0..lives / ROUNDS {
                queue.one_life().await;
            }
        }
    }
    println!("| what | measured | beside few |");
    println!("|---|---|---|");
    let few = median(&mut queues[0].took);
    for (count, queue) in QUEUED.iter().zip(&mut queues) {
        let middle = median(&mut queue.took);
        let (ms, ratio) = (middle.as_secs_f64() * 1000.0, few.as_secs_f64() / middle.as_secs_f64());
        println!("| a job's life in the store, {count} waiting, n = {lives} | {ms:.2} ms | {ratio:.2} of the rate |");
    }
    println!(
        "| one fdatasync there | {:.2} ms | |",
        sync(folder.path()).as_secs_f64() * 1000.0
    );
}
