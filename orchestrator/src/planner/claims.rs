//! Working while claims are held.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// Works, and renews the claims beside that; gives them back when the daemon stops before the work is done.
///
/// The work goes on while claims are renewed, and is dropped before they are given back: it may be in a transaction that
/// holds their rows, for which both would wait for ever.
///
/// # Errors
/// When the claims could not be renewed or given back; the work is dropped then.
pub(super) async fn while_held<E, Renewed: Future<Output = Result<usize, E>>>(
    work: impl Future<Output = ()>,
    every: Duration,
    stop: &CancellationToken,
    renew: impl Fn() -> Renewed,
    give_back: impl Future<Output = Result<usize, E>>,
) -> Result<(), E> {
    let mut work = Box::pin(work);
    let renewing = async {
        loop {
            tokio::time::sleep(every).await;
            // Those that were planned meanwhile are not held either: the work is at its end then.
            if renew().await? == 0 {
                return Ok(());
            }
        }
    };
    tokio::select! {
        () = &mut work => return Ok(()),
        () = stop.cancelled() => {}
        ended = renewing => return ended,
    }
    drop(work);
    give_back.await.map(drop)
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, convert::Infallible};

    use tokio::sync::Mutex;

    use super::*;

    const EVERY: Duration = Duration::from_secs(15);

    #[tokio::test(start_paused = true)]
    async fn work_that_holds_a_row_ends_although_its_claim_is_renewed_or_given_back_meanwhile() {
        let row = Mutex::new(());
        let touch = || async {
            let _row = row.lock().await;
            Ok::<_, Infallible>(1)
        };
        let done = Cell::new(false);
        let work = async {
            let _row = row.lock().await;
            tokio::time::sleep(EVERY * 3).await;
            done.set(true);
        };
        let stop = CancellationToken::new();
        let ended = tokio::time::timeout(EVERY * 10, while_held(work, EVERY, &stop, touch, touch())).await;
        assert!(
            ended.is_ok() && done.get(),
            "the renewal waits for the work, which goes on"
        );

        let work = async {
            let _row = row.lock().await;
            std::future::pending().await
        };
        let stopping = async {
            tokio::time::sleep(EVERY * 3).await;
            stop.cancel();
        };
        let both = async { tokio::join!(while_held(work, EVERY, &stop, touch, touch()), stopping) };
        let ended = tokio::time::timeout(EVERY * 10, both).await;
        assert!(ended.is_ok(), "the work lets go of the row before it is given back");
    }

    #[tokio::test(start_paused = true)]
    async fn work_whose_claims_are_lost_is_given_up() {
        let lost = || async { Ok::<_, Infallible>(0) };
        let never = async { unreachable!("nothing is left to be given back") };
        let work = std::future::pending();
        let stop = CancellationToken::new();
        let ended = tokio::time::timeout(EVERY * 2, while_held(work, EVERY, &stop, lost, never)).await;
        assert!(ended.is_ok());
    }
}
