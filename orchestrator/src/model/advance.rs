//! What happens next in a run attempt. `advance` is applied in the transaction that ends a job,
//! after that transaction has locked the run, so two jobs ending at once never both look away.

use super::{
    ids::JobId,
    state::{JobState, RunState},
};

/// What `advance` needs to know of one job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobView {
    /// Which.
    pub id: JobId,
    /// Its key in the plan.
    pub key: String,
    /// Where it stands.
    pub state: JobState,
    /// Keys of the jobs it needs.
    pub needs: Vec<String>,
}

/// A run attempt as the transaction sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// All jobs, carried-over ones included, in plan order.
    pub jobs: Vec<JobView>,
    /// Somebody asked for the end of the whole run.
    pub cancel_requested: bool,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Move {
    /// `waiting` → `queued`.
    Queue(JobId),
    /// `waiting` → `skipped`.
    Skip(JobId, Cause),
    /// `waiting` or `queued` → `cancelled`.
    Cancel(JobId),
    /// The run attempt is over.
    End(RunState),
}

/// Why a job is skipped: a job that it needs ended otherwise than in success.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// The key of that job.
    pub key: String,
    /// How it ended.
    pub state: JobState,
}

/// The moves that are due. Applying them and calling again yields none: the function is idempotent.
#[must_use]
pub fn advance(snapshot: &Snapshot) -> Vec<Move> {
    let mut jobs = snapshot.jobs.clone();
    let mut moves = Vec::new();
    // A skipped job may decide others, so the look is repeated until nothing changes; each pass
    // ends at least one job, so it ends.
    loop {
        let mut changed = false;
        for index in 0..jobs.len() {
            let job = &jobs[index];
            let next = match job.state {
                JobState::Waiting | JobState::Queued if snapshot.cancel_requested => {
                    Some((JobState::Cancelled, Move::Cancel(job.id)))
                }
                JobState::Waiting => decide(job, &jobs),
                _ => None,
            };
            if let Some((state, step)) = next {
                jobs[index].state = state;
                moves.push(step);
                changed = true;
            }
        }
        if !changed {
            break;
        }
    }
    if jobs.iter().all(|job| job.state.is_terminal()) {
        moves.push(Move::End(result(jobs.iter().map(|job| job.state))));
    }
    moves
}

fn decide(job: &JobView, jobs: &[JobView]) -> Option<(JobState, Move)> {
    let needed: Vec<&JobView> = jobs.iter().filter(|other| job.needs.contains(&other.key)).collect();
    if let Some(bad) = needed
        .iter()
        .find(|n| n.state.is_terminal() && n.state != JobState::Success)
    {
        let cause = Cause {
            key: bad.key.clone(),
            state: bad.state,
        };
        // Decided only when all have ended: a later `if: always()` must see every result.
        return needed
            .iter()
            .all(|n| n.state.is_terminal())
            .then_some((JobState::Skipped, Move::Skip(job.id, cause)));
    }
    needed
        .iter()
        .all(|n| n.state == JobState::Success)
        .then_some((JobState::Queued, Move::Queue(job.id)))
}

/// The result of a run attempt whose jobs ended so: the worst counts. A skipped job decides only where there is nothing
/// else: a run in which every job was skipped has a word of its own, because it is no failure, and is no success
/// either, since nothing was tried.
#[must_use]
pub fn result(states: impl IntoIterator<Item = JobState>) -> RunState {
    let rank = |state: RunState| match state {
        RunState::Active => 0,
        RunState::Skipped => 1,
        RunState::Success => 2,
        RunState::Cancelled => 3,
        RunState::Failure => 4,
        RunState::Error => 5,
    };
    states
        .into_iter()
        .map(|state| match state {
            JobState::Success => RunState::Success,
            JobState::Failure | JobState::TimedOut => RunState::Failure,
            JobState::Cancelled => RunState::Cancelled,
            JobState::Error => RunState::Error,
            JobState::Skipped => RunState::Skipped,
            JobState::Waiting | JobState::Queued | JobState::Active => RunState::Active,
        })
        .max_by_key(|state| rank(*state))
        .unwrap_or(RunState::Skipped)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn job(key: &str, state: JobState, needs: &[&str]) -> JobView {
        JobView {
            id: JobId::new(),
            key: key.into(),
            state,
            needs: needs.iter().map(ToString::to_string).collect(),
        }
    }

    fn cause(key: &str, state: JobState) -> Cause {
        Cause { key: key.into(), state }
    }

    fn run(jobs: Vec<JobView>) -> Snapshot {
        Snapshot {
            jobs,
            cancel_requested: false,
        }
    }

    #[test]
    fn jobs_without_needs_are_queued_and_others_wait() {
        let snapshot = run(vec![
            job("a", JobState::Waiting, &[]),
            job("b", JobState::Waiting, &["a"]),
        ]);
        assert_eq!(advance(&snapshot), [Move::Queue(snapshot.jobs[0].id)]);
    }

    #[test]
    fn the_last_of_two_needs_releases_the_job() {
        let mut snapshot = run(vec![
            job("a", JobState::Success, &[]),
            job("b", JobState::Active, &[]),
            job("c", JobState::Waiting, &["a", "b"]),
        ]);
        assert_eq!(advance(&snapshot), []);
        snapshot.jobs[1].state = JobState::Success;
        assert_eq!(advance(&snapshot), [Move::Queue(snapshot.jobs[2].id)]);
    }

    #[test]
    fn a_failure_skips_everything_behind_it_and_ends_the_run() {
        let snapshot = run(vec![
            job("a", JobState::Failure, &[]),
            job("b", JobState::Waiting, &["a"]),
            job("c", JobState::Waiting, &["b"]),
        ]);
        assert_eq!(
            advance(&snapshot),
            [
                Move::Skip(snapshot.jobs[1].id, cause("a", JobState::Failure)),
                Move::Skip(snapshot.jobs[2].id, cause("b", JobState::Skipped)),
                Move::End(RunState::Failure),
            ]
        );
    }

    #[test]
    fn cancelling_ends_what_has_not_begun_and_leaves_what_runs() {
        let mut snapshot = run(vec![
            job("a", JobState::Active, &[]),
            job("b", JobState::Queued, &[]),
            job("c", JobState::Waiting, &["a"]),
        ]);
        snapshot.cancel_requested = true;
        assert_eq!(
            advance(&snapshot),
            [Move::Cancel(snapshot.jobs[1].id), Move::Cancel(snapshot.jobs[2].id)]
        );
    }

    #[test]
    fn a_run_in_which_everything_was_skipped_is_neither_red_nor_green() {
        let snapshot = run(vec![
            job("a", JobState::Skipped, &[]),
            job("b", JobState::Waiting, &["a"]),
        ]);
        assert_eq!(
            advance(&snapshot),
            [
                Move::Skip(snapshot.jobs[1].id, cause("a", JobState::Skipped)),
                Move::End(RunState::Skipped),
            ]
        );
    }

    fn ended() -> impl Strategy<Value = JobState> {
        let ended: Vec<JobState> = JobState::ALL.iter().copied().filter(|s| s.is_terminal()).collect();
        proptest::sample::select(ended)
    }

    proptest! {
        /// A run is green when something succeeded and nothing else than a skipped job did otherwise, skipped when
        /// everything was, and red or cancelled in every other case; the order of its jobs is of no account.
        #[test]
        fn a_runs_result_is_what_its_jobs_deserve(states in proptest::collection::vec(ended(), 1..6)) {
            let found = result(states.iter().copied());
            prop_assert_eq!(found, result(states.iter().rev().copied()));
            let others: Vec<_> = states.iter().filter(|s| **s != JobState::Skipped).collect();
            prop_assert_eq!(found == RunState::Skipped, others.is_empty());
            let green = !others.is_empty() && others.iter().all(|s| **s == JobState::Success);
            prop_assert_eq!(found == RunState::Success, green);
        }

        /// Playing any acyclic run to its end, in any order and with any results, ends every job
        /// exactly once and the run exactly once, whatever the order.
        #[test]
        fn every_run_ends(
            edges in proptest::collection::vec(proptest::collection::vec(any::<prop::sample::Index>(), 0..3), 1..9),
            picks in proptest::collection::vec((any::<prop::sample::Index>(), 0..4u8), 9),
        ) {
            let mut jobs: Vec<JobView> = Vec::new();
            for (index, needs) in edges.iter().enumerate() {
                let needs: Vec<String> = if index == 0 { vec![] } else { needs.iter().map(|n| format!("j{}", n.index(index))).collect() };
                jobs.push(JobView { id: JobId::new(), key: format!("j{index}"), state: JobState::Waiting, needs });
            }
            let mut snapshot = run(jobs);
            let mut ended = 0;
            let mut picks = picks.into_iter();
            loop {
                for step in advance(&snapshot) {
                    let (id, state) = match step {
                        Move::Queue(id) => (id, JobState::Queued),
                        Move::Skip(id, _) => (id, JobState::Skipped),
                        Move::Cancel(id) => (id, JobState::Cancelled),
                        Move::End(state) => { prop_assert!(state != RunState::Active); ended += 1; continue }
                    };
                    let job = snapshot.jobs.iter_mut().find(|j| j.id == id).unwrap();
                    prop_assert!(job.state.next().contains(&state));
                    job.state = state;
                }
                if ended > 0 { break }
                prop_assert!(!advance(&snapshot).iter().any(|m| !matches!(m, Move::End(_))), "idempotent");
                let runnable: Vec<usize> = (0..snapshot.jobs.len()).filter(|i| snapshot.jobs[*i].state == JobState::Queued).collect();
                prop_assert!(!runnable.is_empty(), "a run never hangs");
                let (pick, how) = picks.next().expect("every pick ends a job, and there are at most nine");
                let at = runnable[pick.index(runnable.len())];
                snapshot.jobs[at].state = [JobState::Success, JobState::Failure, JobState::TimedOut, JobState::Error][how as usize];
            }
            prop_assert_eq!(ended, 1);
            prop_assert!(snapshot.jobs.iter().all(|j| j.state.is_terminal()));
        }
    }
}
