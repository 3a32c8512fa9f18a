//! The end of an attempt: seal the log, commit the result, destroy the machine. Every part may be
//! repeated by a daemon that takes over.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{
    Deps, keep,
    progress::End,
    task::{Stopped, chain},
};
use crate::{
    failpoint::{self, Point},
    logs::LogWriter,
    model::{
        names::MachineName,
        state::{JobState, MachineState},
    },
    queue::Hint,
    store::{AttemptEnd, AttemptRow, EndOutcome},
};

/// How often a failing destruction is tried again.
const DESTROY_AGAIN: Duration = Duration::from_secs(2);
/// How many bytes of a lost machine's console are added to the log.
const CONSOLE_TAIL: u64 = 4096;

/// Seals the log, stores the result, and destroys or keeps the machine.
pub(super) async fn finish(
    deps: &Deps,
    attempt: &AttemptRow,
    mut log: LogWriter,
    end: End,
    stop: &CancellationToken,
) -> Result<(), Stopped> {
    let name = MachineName::of(attempt.id);
    if !deps.store.attempt_finishing(attempt.id, attempt.epoch).await? {
        return Err(Stopped::Fenced);
    }
    let last = match &end {
        End::Result { result, message } => format!("Job ended: {}: {message}", result.state()),
        End::Infra { cause } => {
            for line in console_tail(deps, &name).await {
                log.system(0, &format!("console: {line}")).ok();
            }
            format!("The machine failed, not the job: {cause}")
        }
    };
    log.system(0, &last).ok();
    if let Err(error) = log.seal().await {
        // The plain file stays readable; the janitor seals it later.
        tracing::warn!(attempt = %attempt.id, error = &error as &dyn std::error::Error, "a log was not sealed");
    }
    failpoint::hit(Point::BeforeResult);
    commit(deps, attempt, end, stop).await
}

/// As [`finish`], for an attempt whose log or checkpoint cannot be used.
pub(super) async fn unlogged(
    deps: &Deps,
    attempt: &AttemptRow,
    cause: String,
    stop: &CancellationToken,
) -> Result<(), Stopped> {
    commit(deps, attempt, End::Infra { cause }, stop).await
}

/// Stores the result, and destroys the machine unless it is to be kept. Nobody listens to the machine any more.
pub(super) async fn commit(
    deps: &Deps,
    attempt: &AttemptRow,
    end: End,
    stop: &CancellationToken,
) -> Result<(), Stopped> {
    tracing::info!(attempt = %attempt.id, job = %attempt.job, ?end, "attempt ended");
    let end = match end {
        End::Result { result, message } => AttemptEnd::Result { result, message },
        End::Infra { cause } => AttemptEnd::Infra { cause },
    };
    let outcome = deps
        .store
        .end_attempt(attempt.id, attempt.epoch, end, deps.config.limits.infra_tries)
        .await?;
    failpoint::hit(Point::ResultStored);
    match outcome {
        EndOutcome::Fenced => return Err(Stopped::Fenced),
        EndOutcome::Requeued { tries } => tracing::warn!(job = %attempt.job, tries, "the job gets a fresh machine"),
        EndOutcome::Ended {
            job: JobState::Error, ..
        } => tracing::error!(job = %attempt.job, "the job is given up"),
        EndOutcome::Ended { .. } => {}
    }
    for hint in [Hint::Job, Hint::Report, Hint::Run(attempt.run)] {
        deps.hints.notify(hint);
    }
    let name = MachineName::of(attempt.id);
    if keep::is_kept(deps, &name).await? {
        // Whoever looks after kept machines goes on, also with what did not work now.
        deps.hints.notify(Hint::Kept);
        return Ok(());
    }
    // However often that takes. Who stops meanwhile leaves the row draining, and the next daemon goes on.
    while !destroy_once(deps, &name).await {
        let again = tokio::time::sleep(DESTROY_AGAIN);
        stop.run_until_cancelled(again).await.ok_or(Stopped::Shutdown)?;
    }
    Ok(())
}

/// One try to destroy a machine and everything of it; whether nothing is left to be done. A kept machine is
/// left alone.
pub async fn destroy_once(deps: &Deps, name: &MachineName) -> bool {
    let destroyed = async {
        // Whether a machine is kept is decided at the end of its attempt, so what is not kept here never will be.
        let row = deps.store.machine(name).await.map_err(|e| chain(&e))?;
        if row.is_some_and(|row| row.state == MachineState::Kept) {
            return Ok(true);
        }
        deps.machines.destroy(name).await.map_err(|e| chain(&e))?;
        deps.source.drop_grant(name.attempt()).await.map_err(|e| chain(&e))?;
        failpoint::hit(Point::MachineDestroyed);
        deps.store
            .machine_state(name, MachineState::Gone)
            .await
            .map_err(|e| chain(&e))
    };
    match destroyed.await {
        Ok(_) => {
            deps.hints.notify(Hint::Capacity);
            true
        }
        Err(error) => {
            tracing::error!(machine = %name, error, "a machine could not be destroyed; it will be tried again");
            false
        }
    }
}

/// The end of a machine's console, at most [`CONSOLE_TAIL`] bytes.
pub(super) async fn console_end(deps: &Deps, name: &MachineName) -> String {
    let mut tail: Vec<u8> = Vec::new();
    let mut at = 0;
    while let Ok(part) = deps.machines.console(name, at).await {
        if part.bytes.is_empty() {
            break;
        }
        tail.extend_from_slice(&part.bytes);
        let keep = usize::try_from(CONSOLE_TAIL).unwrap_or(usize::MAX);
        tail.drain(..tail.len().saturating_sub(keep));
        at = part.next;
    }
    String::from_utf8_lossy(&tail).into_owned()
}

/// The last lines of a machine's console, for the log of an attempt that lost it.
async fn console_tail(deps: &Deps, name: &MachineName) -> Vec<String> {
    let text = console_end(deps, name).await;
    let lines: Vec<String> = text
        .lines()
        .map(|line| line.chars().filter(|c| !c.is_control()).take(300).collect::<String>())
        .filter(|line| !line.trim().is_empty())
        .collect();
    lines[lines.len().saturating_sub(20)..].to_vec()
}
