//! The database: every fact that must survive a crash. One file per aggregate; each public method is
//! one transaction. The database is also the queue; hints (`crate::queue`) only wake whoever asks it.

macro_rules! in_tx {
    ($store:expr, $what:literal, [$($shared:tt)*], |$tx:ident| $body:expr) => {
        in_tx!($store, $what, Synced, [$($shared)*], |$tx| $body)
    };
    // Owned arguments are shared by the repetitions that Postgres may need.
    ($store:expr, $what:literal, $commit:ident, [$($name:ident = $value:expr),* $(,)?], |$tx:ident| $body:expr) => {{
        let shared = std::sync::Arc::new(($($value,)*));
        $store
            .write($what, $crate::store::engine::writer::Commit::$commit, move |$tx| {
                let shared = std::sync::Arc::clone(&shared);
                Box::pin(async move {
                    let ($($name,)*) = &*shared;
                    $body.await
                })
            })
            .await
    }};
}

mod attempt;
mod engine;
mod intake;
mod people;
mod read;
mod report;
mod retention;
mod run;
#[cfg(test)]
pub(crate) mod tests;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use futures::future::BoxFuture;

use crate::{
    config,
    store::engine::{
        db::{Check, Pool},
        tx::Tx,
        writer::Commit,
    },
};

pub use self::engine::inspect::{Inspection, inspect};
pub use self::{
    attempt::{
        attempts::{AttemptRow, Join},
        claim::{MachineUse, QueuedClass},
        ending::{AttemptEnd, EndOutcome},
        keeping::{KeepOutcome, ReleaseOutcome},
        machines::{Keep, MachineRow},
        nodes::Registered,
        progress::AttemptNews,
        steps::{StepRow, StepUpdate},
    },
    engine::error::StoreError,
    intake::{
        comparisons::{Comparison, HeldPush, Missed, Tip},
        deliveries::{ClaimedDelivery, DeliveryOutcome, NewDelivery, RecordOutcome},
        triggers::{ClaimedTrigger, TriggerOutcome, TriggerRow},
    },
    people::{
        access::{Exchange, NewToken, TokenRow},
        audit::AuditEntry,
        sessions::SessionRow,
    },
    read::{
        counts::Counts,
        delivery_list::{DeliveryBuild, DeliveryFilter, DeliveryRow},
        pages::{JobDetail, RunAttemptRow, RunDetail, RunFilter, RunSummary},
        why::Why,
    },
    report::reports::{ClaimedReport, PutOff, ReportStates},
    retention::{FileClass, Removal},
    run::{
        cancel::CancelOutcome,
        cancel_request::CancelRequest,
        create::{NewRun, PlannedRun},
        job_version::JobVersion,
        jobs::{JobRequirement, JobRow},
        rerun::{Rerun, RerunOutcome},
        waiting::Waiting,
    },
};

/// The database. Cheap to clone; all clones share the connections.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    pool: Pool,
    /// Rows that could not be read and were passed over, since the start.
    unreadable: AtomicU64,
    /// Where a temporary database lives, removed with the last clone.
    _folder: Option<tempfile::TempDir>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.inner.pool {
            Pool::Sqlite { .. } => "Store(sqlite)",
            Pool::Postgres { .. } => "Store(postgres)",
        })
    }
}

impl Store {
    /// Opens the database, checks it, and brings its schema up to date. Refuses a damaged one and one
    /// that a later version wrote.
    pub async fn open(db: &config::Database) -> Result<Self, StoreError> {
        Ok(Self::of(Pool::open(db, Check::Whole).await?, None))
    }

    /// Opens the database of a daemon that runs, for a command beside it: what the daemon read of it at its start, all of
    /// it, is not read again.
    pub async fn open_beside_daemon(db: &config::Database) -> Result<Self, StoreError> {
        Ok(Self::of(Pool::open(db, Check::Schema).await?, None))
    }

    fn of(pool: Pool, folder: Option<tempfile::TempDir>) -> Self {
        Self {
            inner: Arc::new(Inner {
                pool,
                unreadable: AtomicU64::new(0),
                _folder: folder,
            }),
        }
    }

    /// An empty SQLite database that vanishes with the last clone.
    pub async fn open_temporary() -> Result<Self, StoreError> {
        let folder = tempfile::tempdir().map_err(|e| StoreError::location(&std::env::temp_dir(), e.to_string()))?;
        let db = config::Database::Sqlite(folder.path().join("helios-ci.db"));
        Ok(Self::of(Pool::open(&db, Check::Whole).await?, Some(folder)))
    }

    /// Finishes what is under way and closes the database; every later call says so.
    pub async fn close(&self) {
        self.inner.pool.close().await;
    }

    /// Whether the database answers.
    pub async fn ping(&self) -> Result<(), StoreError> {
        let mut tx = self.read_single("reach the database").await?;
        tx.rows("SELECT version FROM schema_versions", &[]).await.map(drop)
    }

    /// Changes rows behind the store's back, for tests of what stands on it.
    #[cfg(test)]
    pub(crate) async fn sql(&self, sql: &'static str) {
        let changed = self.write("change rows for a test", Commit::Synced, move |tx| {
            Box::pin(async move { tx.execute(sql, &[]).await.map(drop) })
        });
        changed.await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    /// Logs and counts rows that a claim passed over; called once they are marked in the database.
    fn note_unreadable(&self, errors: &[StoreError]) {
        for error in errors {
            let error = error as &dyn std::error::Error;
            tracing::error!(error, "passed over a row that cannot be read");
            self.inner.unreadable.fetch_add(1, Ordering::Relaxed);
        }
    }

    async fn read(&self, what: &'static str) -> Result<Tx, StoreError> {
        self.inner.pool.read(what).await
    }

    /// For one statement, which is a snapshot by itself and needs no transaction around it.
    async fn read_single(&self, what: &'static str) -> Result<Tx, StoreError> {
        self.inner.pool.read_single(what).await
    }

    async fn write<T, F>(&self, what: &'static str, commit: Commit, operation: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: for<'t> Fn(&'t mut Tx) -> BoxFuture<'t, Result<T, StoreError>> + Send + Sync + 'static,
    {
        self.inner.pool.write(what, commit, operation).await
    }
}

/// A duration in milliseconds.
fn ms(duration: std::time::Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX / 4)
}
