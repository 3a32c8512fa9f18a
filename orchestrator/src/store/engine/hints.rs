//! Hints from other nodes that share the database, on Postgres.
//!
//! ```text
//!  node A: a write ─▶ rows ─▶ database trigger: pg_notify, in the same transaction
//!                                        │ at the commit
//!  node B: LISTEN on a connection of its own ─▶ this node's hints ─▶ planner, scheduler, reporter, drivers
//! ```
//!
//! **Why the database sends them.** The rows say what changed, whoever changed them (a daemon, the command line), so no
//! writer can forget to; it costs no round trip; and what is rolled back is not sent. Which change is which hint stands in
//! the migration that makes the triggers. The price: Postgres commits transactions that notify one at a time.
//!
//! **Losing one costs latency.** The sender never knows whether anybody listens. Whoever begins to listen, or begins again
//! after a break, takes it that everything has changed; and what waits is looked for on a slow timer in any case
//! (`Store::waiting`). Of the hints, [`Hint::Claimed`], [`Hint::Run`] and [`Hint::Capacity`]
//! concern their own node alone and are not sent.

use std::{sync::Arc, time::Duration};

use sqlx::{PgPool, postgres::PgListener};
use tokio_util::sync::CancellationToken;

use super::db::Pool;
use crate::{
    queue::{Hint, Hints},
    store::{Store, StoreError},
};

const LISTEN: &str = "listen for hints";
/// The channel of every helios-ci in a database.
const CHANNEL: &str = "helios_ci";
/// A connection that brought nothing for so long may be dead without anybody having said so: it is made again.
const SILENCE: Duration = Duration::from_secs(60);
/// How long to wait before listening again, at first and at most.
const PAUSES: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(10));

impl Store {
    /// Passes on to `hints` what other nodes hint at, until `stop`; on SQLite there are none, and this returns at once.
    /// Errors are logged, and only delay: it goes on by itself.
    pub async fn relay_hints(&self, hints: Arc<dyn Hints>, stop: CancellationToken) {
        let Pool::Postgres { pool, .. } = &self.inner.pool else {
            return;
        };
        let mut pause = PAUSES.0;
        while let Some(ended) = stop.run_until_cancelled(listen(pool, hints.as_ref(), &mut pause)).await {
            match ended {
                Ok(()) => {}
                Err(StoreError::Closed { .. }) => return,
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(
                        error,
                        "no hints come from other nodes now; what waits is found more slowly"
                    );
                }
            }
            if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return;
            }
            pause = (pause * 2).min(PAUSES.1);
        }
    }
}

/// Listens until the connection is lost or silent for too long.
async fn listen(pool: &PgPool, hints: &dyn Hints, pause: &mut Duration) -> Result<(), StoreError> {
    let failed = |source| StoreError::from_sqlx(LISTEN, source);
    let mut listener = PgListener::connect_with(pool).await.map_err(failed)?;
    // Whoever called must know of the break; connecting again by itself would hide it.
    listener.eager_reconnect(false);
    let schema: String = sqlx::query_scalar("SELECT CAST(current_schema() AS TEXT)")
        .fetch_one(&mut listener)
        .await
        .map_err(failed)?;
    listener.listen(CHANNEL).await.map_err(failed)?;
    // Only now: what changes from here on is hinted at.
    for hint in [Hint::Delivery, Hint::Trigger, Hint::Job, Hint::Report, Hint::Kept] {
        hints.notify(hint);
    }
    *pause = PAUSES.0;
    while let Ok(received) = tokio::time::timeout(SILENCE, listener.try_recv()).await {
        let Some(notification) = received.map_err(failed)? else {
            break;
        };
        if let Some(hint) = read(notification.payload(), &schema) {
            hints.notify(hint);
        }
    }
    Ok(())
}

/// A payload as the database's triggers write it: `job - public`, `cancel 01j… public`. `None`: it is another schema's,
/// or one of a later version.
fn read(payload: &str, schema: &str) -> Option<Hint> {
    let mut parts = payload.splitn(3, ' ');
    let (kind, subject, of) = (parts.next()?, parts.next()?, parts.next()?);
    if of != schema {
        return None;
    }
    Some(match kind {
        "delivery" => Hint::Delivery,
        "trigger" => Hint::Trigger,
        "job" => Hint::Job,
        "report" => Hint::Report,
        "kept" => Hint::Kept,
        "cancel" => Hint::Cancel(subject.parse().ok()?),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ids::AttemptId;

    #[test]
    fn a_payload_is_read_and_what_is_not_ours_is_not() {
        let attempt = AttemptId::new();
        assert_eq!(read("job - public", "public"), Some(Hint::Job));
        assert_eq!(
            read(&format!("cancel {attempt} my schema"), "my schema"),
            Some(Hint::Cancel(attempt))
        );
        for foreign in [
            "job - other",
            "job",
            "",
            "cancel - public",
            "later - public",
            "run x public",
        ] {
            assert_eq!(read(foreign, "public"), None, "{foreign}");
        }
    }
}
