//! The end of an attempt: end the log, commit the result, then destroy the machine and seal the log side by side. Every part
//! may be repeated by a daemon that takes over; a log that has its end and no seal is sealed by the janitor, which looks
//! when the daemon starts.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{
    console::end_of_console,
    keep,
    progress::End,
    sections::{CONSOLE, ENDED, FAILED},
};
use crate::{
    daemon::Deps,
    driver::{destroy::destroy_once, stopped::Stopped},
    failpoint::{self, Point},
    logs::LogWriter,
    machine::ending,
    model::{names::MachineName, state::JobState},
    queue::Hint,
    store::{AttemptEnd, AttemptRow, EndOutcome},
};

/// How often a failing destruction is tried again.
const DESTROY_AGAIN: Duration = Duration::from_secs(2);
/// How many lines of it are added to the log.
const CONSOLE_LINES: usize = 20;

/// Ends the log, stores the result, destroys or keeps the machine, and beside that seals the log.
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
    let (end, last) = match end {
        End::Result { result, message } => {
            let last = format!("{ENDED}{}: {message}", result.state());
            (End::Result { result, message }, last)
        }
        End::Infra { cause } => {
            let console = end_of_console(deps, &name).await;
            let lines = ending::lines(&console);
            if !log.has_ended() {
                for line in &lines[lines.len().saturating_sub(CONSOLE_LINES)..] {
                    log.system(0, &format!("{CONSOLE}{}", ending::public(line, ending::LINE)))
                        .ok();
                }
            }
            let cause = explained(attempt, &cause, &console);
            let last = format!("{FAILED}{cause}");
            (End::Infra { cause }, last)
        }
    };
    // A daemon before may have died behind the end of the log.
    if !log.has_ended() {
        log.system(0, &last).ok();
    }
    let ended = log.end().await;
    failpoint::hit(Point::BeforeResult);
    store_result(deps, attempt, end).await?;
    let sealed = async {
        let sealed = match ended {
            Ok(()) => log.seal().await.map(|_| failpoint::hit(Point::LogSealed)),
            Err(error) => Err(error),
        };
        if let Err(error) = sealed {
            // The plain file stays readable; this node's janitor seals it within a minute.
            tracing::warn!(attempt = %attempt.id, error = &error as &dyn std::error::Error, "a log was not sealed");
        }
    };
    let (removed, ()) = tokio::join!(release(deps, &name, stop), sealed);
    removed
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
    store_result(deps, attempt, end).await?;
    release(deps, &MachineName::of(attempt.id), stop).await
}

/// The result and what follows from it; then everybody may know.
async fn store_result(deps: &Deps, attempt: &AttemptRow, end: End) -> Result<(), Stopped> {
    tracing::info!(attempt = %attempt.id, job = %attempt.job, ?end, "attempt ended");
    let end = match end {
        End::Result { result, message } => AttemptEnd::Result { result, message },
        // Public pages show it. What was left out is in our own log.
        End::Infra { cause } => AttemptEnd::Infra {
            cause: ending::public(&cause, ending::CAUSE),
        },
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
    Ok(())
}

/// Destroys the machine of an attempt that has ended, unless it is to be kept.
async fn release(deps: &Deps, name: &MachineName, stop: &CancellationToken) -> Result<(), Stopped> {
    if keep::is_kept(deps, name).await? {
        // Whoever looks after kept machines goes on, also with what did not work now.
        deps.hints.notify(Hint::Kept);
        return Ok(());
    }
    // However often that takes. Who stops meanwhile leaves the row draining, and the next daemon goes on.
    while !destroy_once(deps, name).await {
        let again = tokio::time::sleep(DESTROY_AGAIN);
        stop.run_until_cancelled(again).await.ok_or(Stopped::Shutdown)?;
    }
    Ok(())
}

/// A machine's failure as everybody may read it, with what its guest said of it where that is not in it.
fn explained(attempt: &AttemptRow, cause: &str, console: &[u8]) -> String {
    let told = ending::public(cause, ending::CAUSE - 2 * ending::LINE);
    if told != cause {
        tracing::warn!(attempt = %attempt.id, cause, "the machine failed; people are told less of it");
    }
    match ending::said_by_guest(console) {
        Some(said) if !told.contains(&said) => format!("{told}; {said}"),
        _ => told,
    }
}
