//! Numbers for metrics.

use std::{collections::BTreeMap, sync::atomic::Ordering};

use crate::{
    model::state::{AttemptState, JobState, MachineState},
    store::{
        Store, StoreError,
        engine::{
            transitions::{live, states_sql},
            tx::Tx,
        },
    },
};

/// How many of everything there are now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Jobs that have not ended, by state; every such state is there.
    pub jobs: BTreeMap<JobState, u64>,
    /// Since when the job is queued that is for longest, in milliseconds since 1970.
    pub oldest_queued_ms: Option<i64>,
    /// Attempts that have not ended.
    pub attempts_live: u64,
    /// Deliveries not read yet.
    pub deliveries_received: u64,
    /// Triggers not planned yet.
    pub triggers_received: u64,
    /// Checks whose newest state the forge has not accepted.
    pub reports_undelivered: u64,
    /// Of these, the ones the forge refused.
    pub reports_refused: u64,
    /// Deliveries, triggers and reports that this daemon could not read and passed over, since it started.
    pub rows_unreadable: u64,
    /// Machines that are not gone, by state; every such state is there.
    pub machines: BTreeMap<MachineState, u64>,
}

impl Store {
    /// How many of everything there are now.
    pub async fn counts(&self) -> Result<Counts, StoreError> {
        let mut tx = self.read("count for the metrics").await?;
        let tx = &mut tx;
        let mut counts = Counts {
            jobs: live().into_iter().map(|state| (state, 0)).collect(),
            oldest_queued_ms: oldest_queued(tx).await?,
            attempts_live: count(
                tx,
                &states_sql(
                    "SELECT COUNT(*) AS n FROM attempts WHERE state IN ({from}) AND state <> 'ended'",
                    live::<AttemptState>(),
                ),
            )
            .await?,
            deliveries_received: count(tx, "SELECT COUNT(*) AS n FROM deliveries WHERE state = 'received'").await?,
            triggers_received: count(tx, "SELECT COUNT(*) AS n FROM triggers WHERE state = 'received'").await?,
            reports_undelivered: count(tx, "SELECT COUNT(*) AS n FROM reports WHERE delivered < version").await?,
            reports_refused: count(
                tx,
                "SELECT COUNT(*) AS n FROM reports WHERE delivered < version AND refused = 1",
            )
            .await?,
            rows_unreadable: self.inner.unreadable.load(Ordering::Relaxed),
            machines: live().into_iter().map(|state| (state, 0)).collect(),
        };
        let jobs = states_sql(
            "SELECT state, COUNT(*) AS n FROM jobs WHERE state IN ({from}) GROUP BY state",
            live::<JobState>(),
        );
        for row in tx.rows(jobs, &[]).await? {
            counts.jobs.insert(row.parse("state")?, u64::from(row.num("n")?));
        }
        let machines = states_sql(
            "SELECT state, COUNT(*) AS n FROM machines WHERE state IN ({from}) AND state <> 'gone' GROUP BY state",
            live::<MachineState>(),
        );
        for row in tx.rows(machines, &[]).await? {
            counts.machines.insert(row.parse("state")?, u64::from(row.num("n")?));
        }
        Ok(counts)
    }
}

async fn oldest_queued(tx: &mut Tx) -> Result<Option<i64>, StoreError> {
    let row = tx
        .row("SELECT MIN(queued_ms) AS oldest FROM jobs WHERE state = 'queued'", &[])
        .await?;
    row.map_or(Ok(None), |row| row.opt_int("oldest"))
}

async fn count(tx: &mut Tx, sql: &str) -> Result<u64, StoreError> {
    let row = tx.row(sql.to_owned(), &[]).await?;
    row.map_or(Ok(0), |row| row.num("n").map(u64::from))
}
