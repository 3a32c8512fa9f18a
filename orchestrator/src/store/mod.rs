//! The database: every fact that must survive a crash. One file per aggregate; each public method is
//! one transaction. The database is also the queue; hints (`crate::queue`) only wake whoever asks it.

macro_rules! in_tx {
    ($store:expr, $what:literal, [$($shared:tt)*], |$tx:ident| $body:expr) => {
        in_tx!($store, $what, false, [$($shared)*], |$tx| $body)
    };
    // Owned arguments are shared by the repetitions that Postgres may need.
    ($store:expr, $what:literal, $single:literal, [$($name:ident = $value:expr),* $(,)?], |$tx:ident| $body:expr) => {{
        let shared = std::sync::Arc::new(($($value,)*));
        $store
            .write($what, $single, move |$tx| {
                let shared = std::sync::Arc::clone(&shared);
                Box::pin(async move {
                    let ($($name,)*) = &*shared;
                    $body.await
                })
            })
            .await
    }};
}

mod access;
mod attempts;
mod audit;
mod cancel;
mod claim;
mod comparisons;
mod counts;
mod create;
mod db;
mod deliveries;
mod delivery_list;
mod ending;
mod error;
mod job_version;
mod jobs;
mod keeping;
mod law;
mod look;
mod machines;
mod nodes;
mod outbox;
mod pages;
mod reports;
mod rerun;
mod retention;
mod runs;
mod server_clock;
mod sessions;
mod steps;
mod stuck;
#[cfg(test)]
pub(crate) mod tests;
mod triggers;
mod tx;
mod waiting;
mod why;
mod wording;
mod writer;

use std::{fmt, sync::Arc};

use futures::future::BoxFuture;

pub use self::look::{Seen, look};
pub use self::{
    access::{Exchange, NewToken, TokenRow},
    attempts::{AttemptRow, Join},
    audit::AuditEntry,
    cancel::{CancelOutcome, CancelRequest},
    claim::{ClaimedJob, MachineUse, QueuedClass},
    comparisons::{Comparison, Held, KnownRepository, Missed, Tip},
    counts::Counts,
    create::{JobRequirement, NewRun, PlannedRun},
    deliveries::{ClaimedDelivery, DeliveryOutcome, NewDelivery, Recorded},
    delivery_list::{DeliveryBuild, DeliveryFilter, DeliveryRow},
    ending::{AttemptEnd, EndOutcome},
    error::StoreError,
    job_version::JobVersion,
    jobs::JobRow,
    keeping::{KeepOutcome, ReleaseOutcome},
    machines::{Keep, MachineRow},
    nodes::Registered,
    pages::{JobDetail, RunAttemptRow, RunDetail, RunFilter, RunSummary},
    reports::ClaimedReport,
    rerun::{Rerun, RerunOutcome},
    retention::{FileClass, Removal},
    sessions::SessionRow,
    steps::{StepRow, StepUpdate},
    triggers::{ClaimedTrigger, TriggerOutcome, TriggerRow},
    waiting::Waiting,
    why::Why,
};
use self::{db::Pool, tx::Tx};
use crate::config;

/// The database. Cheap to clone; all clones share the connections.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    pool: Pool,
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
        Ok(Self {
            inner: Arc::new(Inner {
                pool: Pool::open(db).await?,
                _folder: None,
            }),
        })
    }

    /// An empty SQLite database that vanishes with the last clone.
    pub async fn open_temporary() -> Result<Self, StoreError> {
        let folder = tempfile::tempdir().map_err(|e| StoreError::place(&std::env::temp_dir(), e.to_string()))?;
        let db = config::Database::Sqlite(folder.path().join("helios-ci.db"));
        Ok(Self {
            inner: Arc::new(Inner {
                pool: Pool::open(&db).await?,
                _folder: Some(folder),
            }),
        })
    }

    /// Finishes what is under way and closes the database; every later call says so.
    pub async fn close(&self) {
        self.inner.pool.close().await;
    }

    /// Whether the database answers.
    pub async fn ping(&self) -> Result<(), StoreError> {
        let mut tx = self.glance("reach the database").await?;
        tx.rows("SELECT version FROM schema_versions", &[]).await.map(drop)
    }

    /// Changes rows behind the store's back, for tests of what stands on it.
    #[cfg(test)]
    pub(crate) async fn sql(&self, sql: &'static str) {
        let changed = self.write("change rows for a test", false, move |tx| {
            Box::pin(async move { tx.execute(sql, &[]).await.map(drop) })
        });
        changed.await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    async fn read(&self, what: &'static str) -> Result<Tx, StoreError> {
        self.inner.pool.read(what).await
    }

    /// For one statement, which is a snapshot by itself and needs no transaction around it.
    async fn glance(&self, what: &'static str) -> Result<Tx, StoreError> {
        self.inner.pool.glance(what).await
    }

    async fn write<T, F>(&self, what: &'static str, single: bool, operation: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: for<'t> Fn(&'t mut Tx) -> BoxFuture<'t, Result<T, StoreError>> + Send + Sync + 'static,
    {
        self.inner.pool.write(what, single, operation).await
    }
}

/// A duration in milliseconds.
fn ms(duration: std::time::Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX / 4)
}
