//! Random work by several hands against the rules of the states: whatever is asked, in whatever order and with
//! whatever epoch, every observed move is legal, what has ended never changes, and the rows agree.

use std::{collections::BTreeMap, fmt::Debug, str::FromStr};

use proptest::{prelude::*, sample::Index, test_runner::TestRunner};

use super::*;
use crate::{
    model::{
        names::MachineName,
        state::{AttemptState, MachineState, StepState},
    },
    store::engine::{
        transitions::State,
        tx::{Row, args},
    },
};

/// What is asked of the store: an operation, two picks among what there is, and how far its epoch is off.
type Op = (u8, Index, Index, i64);

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let epoch = prop_oneof![4 => Just(0_i64), 1 => -1..2_i64];
    proptest::collection::vec((0..24_u8, any::<Index>(), any::<Index>(), epoch), 1..50)
}

const SHAPES: &[&[(&str, &[&str])]] = &[
    &[("a", &[])],
    &[("a", &[]), ("b", &["a"])],
    &[("a", &[]), ("b", &[]), ("c", &["a", "b"])],
    &[("a", &[]), ("b", &["a"]), ("c", &["a"]), ("d", &["b", "c"])],
];

const RESULTS: &[JobResult] = &[
    JobResult::Success,
    JobResult::Success,
    JobResult::Failure,
    JobResult::Cancelled,
    JobResult::TimedOut,
    JobResult::Error,
];

/// Every row that has a state: by table and key, its state and everything that must not change once
/// it has ended.
type States = BTreeMap<(&'static str, String), (String, String)>;

async fn read_states(lab: &Lab) -> States {
    const TABLES: &[(&str, &str)] = &[
        (
            "run",
            "SELECT run_id || '/' || CAST(number AS TEXT) AS k, state, CAST(ended_ms AS TEXT) AS rest FROM run_attempts",
        ),
        (
            "job",
            "SELECT id AS k, state, CAST(ended_ms AS TEXT) || COALESCE(reason, '') AS rest FROM jobs",
        ),
        (
            "attempt",
            "SELECT id AS k, state, CAST(ended_ms AS TEXT) || COALESCE(result, '') || COALESCE(cause, '') ||
                 CAST(epoch AS TEXT) AS rest FROM attempts",
        ),
        (
            "machine",
            "SELECT name AS k, state, CAST(gone_ms AS TEXT) AS rest FROM machines",
        ),
        (
            "step",
            "SELECT attempt_id || '/' || CAST(idx AS TEXT) AS k, state, name AS rest FROM steps",
        ),
    ];
    let mut tx = lab.store.read("look at every state").await.unwrap();
    let mut seen = States::new();
    for (table, sql) in TABLES {
        for row in tx.rows(*sql, &[]).await.unwrap() {
            let text = |column: &str| row.opt_text(column).unwrap().unwrap_or_default();
            seen.insert((*table, text("k")), (text("state"), text("rest")));
        }
    }
    seen
}

fn legal<S: State + FromStr<Err: Debug> + Debug>(from: &str, to: &str) -> bool {
    let (from, to): (S, S) = (from.parse().unwrap(), to.parse().unwrap());
    from == to || from.next().contains(&to)
}

fn compare(before: &States, after: &States) -> Result<(), TestCaseError> {
    for (key, (from, rest)) in before {
        let Some((to, now)) = after.get(key) else {
            return Err(TestCaseError::fail(format!("{key:?} vanished")));
        };
        let (ok, terminal) = match key.0 {
            "run" => (
                legal::<RunState>(from, to),
                from.parse::<RunState>().unwrap().is_terminal(),
            ),
            "job" => (
                legal::<JobState>(from, to),
                from.parse::<JobState>().unwrap().is_terminal(),
            ),
            "attempt" => (
                legal::<AttemptState>(from, to),
                from.parse::<AttemptState>().unwrap().is_terminal(),
            ),
            "machine" => (
                legal::<MachineState>(from, to),
                from.parse::<MachineState>().unwrap().is_terminal(),
            ),
            _ => (
                legal::<StepState>(from, to),
                from.parse::<StepState>().unwrap().is_terminal(),
            ),
        };
        prop_assert!(ok, "{key:?} went from {from} to {to}");
        prop_assert!(
            !terminal || rest == now,
            "{key:?} had ended as {rest} and now says {now}"
        );
    }
    Ok(())
}

/// What must hold between the rows at any time; each statement counts the exceptions.
async fn agree(lab: &Lab) -> Result<(), TestCaseError> {
    const EXCEPTIONS: &[(&str, &str)] = &[
        (
            "an active job has one live attempt, any other none",
            "SELECT COUNT(*) AS n FROM jobs j WHERE (SELECT COUNT(*) FROM attempts a WHERE a.job_id = j.id
                 AND a.state <> 'ended') <> CASE WHEN j.state = 'active' THEN 1 ELSE 0 END",
        ),
        (
            "a turn counts its queued jobs",
            "SELECT COUNT(*) AS n FROM turn t WHERE t.queued <> (SELECT COUNT(*) FROM jobs j WHERE j.state = 'queued'
                 AND j.class = t.class AND j.connection = t.connection AND j.repository_id = t.repository_id)",
        ),
        (
            "a run attempt is active exactly while a job of it is not over",
            "SELECT COUNT(*) AS n FROM run_attempts r WHERE (r.state = 'active') <> EXISTS (SELECT 1 FROM jobs j
                 WHERE j.run_id = r.run_id AND j.run_attempt = r.number AND j.ended_ms IS NULL)",
        ),
        (
            "a live attempt's machine is not being destroyed, an ended one's is",
            "SELECT COUNT(*) AS n FROM machines m JOIN attempts a ON a.id = m.attempt_id
             WHERE a.state = 'ended' AND m.state IN ('preparing', 'running')",
        ),
        (
            "a machine is kept after its attempt and only when somebody asked, and knows until when",
            "SELECT COUNT(*) AS n FROM machines m JOIN attempts a ON a.id = m.attempt_id
             WHERE m.state = 'kept' AND (a.state <> 'ended' OR m.keep_by IS NULL OR m.keep_until_ms IS NULL)
                 OR m.state <> 'kept' AND m.state NOT IN ('draining', 'gone') AND m.keep_until_ms IS NOT NULL",
        ),
        (
            "nobody types on the console of a machine that was not kept",
            "SELECT COUNT(*) AS n FROM machines m WHERE m.console_by IS NOT NULL AND m.keep_backend IS NULL",
        ),
        (
            "a check is final exactly when the job that owns it is over",
            "SELECT COUNT(*) AS n FROM jobs j JOIN runs r ON r.id = j.run_id AND r.attempt = j.run_attempt
                 JOIN reports c ON c.job_id = j.id AND c.name = j.check_name
             WHERE (j.ended_ms IS NULL) <> (c.completed_ms IS NULL)",
        ),
        (
            "a job that can go on does",
            "SELECT COUNT(*) AS n FROM jobs j JOIN run_attempts r ON r.run_id = j.run_id AND r.number = j.run_attempt
             WHERE j.state IN ('waiting', 'queued') AND r.cancel_ms IS NOT NULL",
        ),
    ];
    for (rule, sql) in EXCEPTIONS {
        prop_assert_eq!(lab.number(sql).await, 0, "{}", rule);
    }
    Ok(())
}

async fn ids(lab: &Lab, sql: &'static str) -> Vec<Row> {
    let mut tx = lab.store.read("list rows to pick from").await.unwrap();
    tx.rows(sql, args![]).await.unwrap()
}

async fn pick<T: FromStr<Err: std::fmt::Display>>(lab: &Lab, sql: &'static str, index: &Index) -> Option<T> {
    let rows = ids(lab, sql).await;
    (!rows.is_empty()).then(|| rows[index.index(rows.len())].parse("id").unwrap())
}

const RUNS: &str = "SELECT id FROM runs ORDER BY id";
const JOBS: &str = "SELECT id FROM jobs ORDER BY seq";
const ATTEMPTS: &str = "SELECT id FROM attempts ORDER BY id";

async fn perform(lab: &Lab, other: &Lab, op: &Op) -> Result<(), StoreError> {
    let (kind, a, b, off) = op;
    let store = &lab.store;
    match kind {
        0 => {
            let workflow = Workflow {
                repository: 1 + u64::try_from(b.index(3)).unwrap(),
                ..ci(SHAPES[a.index(SHAPES.len())])
            };
            lab.run(&workflow).await;
        }
        1..=3 => {
            let lab = if a.index(2) == 0 { lab } else { other };
            lab.claim().await;
        }
        4..=5 => {
            if let Some(run) = pick(lab, RUNS, a).await {
                store.cancel_run(run, "ann", "").await?;
            }
        }
        6 => {
            if let Some(job) = pick(lab, JOBS, a).await {
                store.cancel_job(job, "ann", "").await?;
            }
        }
        7 => {
            if let Some(run) = pick(lab, RUNS, a).await {
                let which = if b.index(2) == 0 { Rerun::All } else { Rerun::Failed };
                store.rerun(run, which, "ann").await?;
            }
        }
        8 if b.index(4) == 0 => drop(store.expire_queued(Duration::ZERO).await?),
        9 if b.index(4) == 0 => {
            for (node, heartbeat) in store.heartbeats(&"nobody".parse().unwrap()).await? {
                store.give_up_node(&node, heartbeat, Duration::ZERO, TRIES).await?;
            }
        }
        10 => drop(store.reclaim(&lab.node, lab.instance).await?),
        _ => {
            if let Some(id) = pick::<AttemptId>(lab, ATTEMPTS, a).await {
                of_attempt(store, op, id, off).await?;
            }
        }
    }
    Ok(())
}

async fn of_attempt(store: &Store, op: &Op, id: AttemptId, off: &i64) -> Result<(), StoreError> {
    let b = &op.2;
    let epoch = store.attempt(id).await?.map_or(0, |attempt| attempt.epoch) + off;
    match op.0 {
        11 => drop(store.attempt_running(id, epoch, "{}").await?),
        12 => drop(store.attempt_finishing(id, epoch).await?),
        13 | 14 => {
            let end = AttemptEnd::Result {
                result: RESULTS[b.index(RESULTS.len())],
                message: String::new(),
            };
            store.end_attempt(id, epoch, end, TRIES).await?;
        }
        15 => {
            let end = AttemptEnd::Infra { cause: "lost".into() };
            store.end_attempt(id, epoch, end, TRIES).await?;
        }
        16 => {
            let to = MachineState::ALL[b.index(MachineState::ALL.len())];
            // Only the end of an attempt keeps a machine.
            if to != MachineState::Kept {
                store.machine_state(&MachineName::of(id), to).await?;
            }
        }
        18 | 19 => {
            let time = Duration::from_millis(u64::try_from(b.index(2)).unwrap() * 60_000);
            store.keep_machine(&MachineName::of(id), "ann", time).await?;
        }
        20 if b.index(2) == 0 => drop(store.release_machine(&MachineName::of(id)).await?),
        20 => drop(store.drain(&MachineName::of(id)).await?),
        21 => drop(store.end_keeps(&"node-a".parse().unwrap()).await?),
        22 => store.machine_cut_off(&MachineName::of(id), "qemu").await?,
        23 => drop(store.take_console(&MachineName::of(id), "ann").await?),
        _ => {
            let step = StepUpdate {
                index: 0,
                name: "make".into(),
                state: StepState::ALL[b.index(StepState::ALL.len())],
                exit_code: None,
                message: None,
                started_ms: None,
                ended_ms: None,
                allowed_failure: false,
            };
            store.step(id, epoch, step).await?;
        }
    }
    Ok(())
}

async fn play(lab: Lab, ops: Vec<Op>) -> Result<(), TestCaseError> {
    let other = lab.node("node-b").await;
    let mut before = read_states(&lab).await;
    for op in ops {
        let done = perform(&lab, &other, &op).await;
        prop_assert!(done.is_ok(), "{op:?}: {done:?}");
        let after = read_states(&lab).await;
        compare(&before, &after)?;
        agree(&lab).await?;
        before = after;
    }
    Ok(())
}

fn run_cases(cases: u32, postgres: bool) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let config = ProptestConfig {
        cases,
        max_shrink_iters: 200,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let result = TestRunner::new(config).run(&ops(), |ops| {
        runtime.block_on(async {
            let lab = if postgres {
                Lab::postgres().await
            } else {
                Some(Lab::sqlite().await)
            };
            match lab {
                Some(lab) => play(lab, ops).await,
                None => Ok(()),
            }
        })
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}

#[test]
fn every_move_is_legal_on_sqlite() {
    run_cases(24, false);
}

#[test]
fn every_move_is_legal_on_postgres() {
    run_cases(6, true);
}
