//! Deliveries for people: what came, what became of it, and why. Bodies are never shown.

use crate::{
    model::{
        ids::{DeliveryId, TriggerId},
        names::{CommitSha, ConnectionId, RefName, RepoPath},
        state::IntakeState,
    },
    store::{
        Store, StoreError,
        engine::tx::{Row, Tx, Value, args, list},
    },
};

/// A delivery, for people.
#[derive(Debug, Clone)]
pub struct DeliveryRow {
    /// Its id.
    pub id: DeliveryId,
    /// Through which connection it came.
    pub connection: ConnectionId,
    /// The forge's word for the event.
    pub event: String,
    /// The forge's own id.
    pub key: String,
    /// The rows of its key are counted: this is more than 1 when it came again.
    pub number: u32,
    /// `owner/name`, as the body claims it.
    pub repository: Option<RepoPath>,
    /// The ref, where it is a push.
    pub ref_name: Option<RefName>,
    /// What the push says that the ref points at.
    pub commit: Option<CommitSha>,
    /// Its state.
    pub state: IntakeState,
    /// Why it was ignored or failed.
    pub reason: Option<String>,
    /// It led to nothing, and plans its run if it is delivered again.
    pub retryable: bool,
    /// Milliseconds since 1970.
    pub received_ms: i64,
    /// What came of it.
    pub builds: Vec<DeliveryBuild>,
}

/// A trigger of a delivery, for people.
#[derive(Debug, Clone)]
pub struct DeliveryBuild {
    /// Its id.
    pub id: TriggerId,
    /// Its state.
    pub state: IntakeState,
    /// Why it was ignored, failed, or waits for another try.
    pub reason: Option<String>,
    /// How often it was tried.
    pub tries: u32,
    /// When it is tried next, in milliseconds since 1970, while it waits.
    pub due_ms: i64,
    /// How many runs it led to.
    pub runs: u32,
}

/// Which deliveries to list.
#[derive(Debug, Clone, Default)]
pub struct DeliveryFilter {
    /// Through this connection.
    pub connection: Option<ConnectionId>,
    /// About the repository of this path; forges ignore its case.
    pub repository: Option<RepoPath>,
    /// In this state.
    pub state: Option<IntakeState>,
    /// Only older ones than this.
    pub before: Option<DeliveryId>,
    /// At most 100; 0 means 50.
    pub limit: u32,
}

const COLUMNS: &str = concat!(
    "SELECT d.id, d.connection, d.event, d.delivery_key, d.number, d.repository_path, d.ref_name, d.commit_sha,
         d.state, d.reason, d.received_ms, CAST(CASE WHEN ",
    crate::store::intake::deliveries::open!("'on_request', 'automatic'"),
    " THEN 1 ELSE 0 END AS BIGINT) AS retryable FROM deliveries d"
);

impl Store {
    /// The newest deliveries first.
    pub async fn deliveries(&self, filter: &DeliveryFilter) -> Result<Vec<DeliveryRow>, StoreError> {
        let mut tx = self.read("list deliveries").await?;
        let mut sql = format!("{COLUMNS} WHERE 1 = 1");
        let mut values: Vec<Value> = Vec::new();
        let mut and = |condition: &str, value: Value| {
            values.push(value);
            sql.push_str(&format!(" AND {condition} ${}", values.len()));
        };
        if let Some(connection) = &filter.connection {
            and("d.connection =", connection.into());
        }
        if let Some(path) = &filter.repository {
            and("LOWER(d.repository_path) =", path.as_str().to_ascii_lowercase().into());
        }
        if let Some(state) = filter.state {
            // As it is shown: as its newest trigger stands, if it has one.
            and(
                "COALESCE((SELECT t.state FROM triggers t WHERE t.delivery_id = d.id ORDER BY t.seq DESC LIMIT 1), d.state) =",
                state.into(),
            );
        }
        if let Some(before) = filter.before {
            values.push(before.into());
            sql.push_str(&format!(
                " AND d.seq < (SELECT seq FROM deliveries WHERE id = ${})",
                values.len()
            ));
        }
        let limit = if filter.limit == 0 { 50 } else { filter.limit.min(100) };
        values.push(limit.into());
        sql.push_str(&format!(" ORDER BY d.seq DESC LIMIT ${}", values.len()));
        let rows = tx.rows(sql, &values).await?;
        let mut found = rows.iter().map(delivery_row).collect::<Result<Vec<_>, _>>()?;
        builds(&mut tx, &mut found).await?;
        Ok(found)
    }

    /// One delivery.
    pub async fn delivery(&self, id: DeliveryId) -> Result<Option<DeliveryRow>, StoreError> {
        let mut tx = self.read("read a delivery").await?;
        let rows = tx.rows(format!("{COLUMNS} WHERE d.id = $1"), args![id]).await?;
        let mut found = rows.iter().map(delivery_row).collect::<Result<Vec<_>, _>>()?;
        builds(&mut tx, &mut found).await?;
        Ok(found.pop())
    }
}

fn delivery_row(row: &Row) -> Result<DeliveryRow, StoreError> {
    Ok(DeliveryRow {
        id: row.parse("id")?,
        connection: row.parse("connection")?,
        event: row.text("event")?,
        key: row.text("delivery_key")?,
        number: row.num("number")?,
        repository: row.opt_parse("repository_path")?,
        ref_name: row.opt_parse("ref_name")?,
        commit: row.opt_parse("commit_sha")?,
        state: row.parse("state")?,
        reason: row.opt_text("reason")?,
        retryable: row.flag("retryable")?,
        received_ms: row.int("received_ms")?,
        builds: Vec::new(),
    })
}

/// Adds what came of these deliveries.
async fn builds(tx: &mut Tx, deliveries: &mut [DeliveryRow]) -> Result<(), StoreError> {
    let ids: Vec<Value> = deliveries.iter().map(|delivery| delivery.id.into()).collect();
    if ids.is_empty() {
        return Ok(());
    }
    let sql = list(
        "SELECT t.id, t.delivery_id, t.state, t.reason, t.tries + t.refusals AS tries, t.due_ms,
             (SELECT COUNT(*) FROM runs r WHERE r.trigger_id = t.id) AS runs
         FROM triggers t WHERE t.delivery_id IN ({list}) ORDER BY t.seq",
        1,
        ids.len(),
    );
    for row in tx.rows(sql, &ids).await? {
        let of: DeliveryId = row.parse("delivery_id")?;
        let build = DeliveryBuild {
            id: row.parse("id")?,
            state: row.parse("state")?,
            reason: row.opt_text("reason")?,
            tries: row.num("tries")?,
            due_ms: row.int("due_ms")?,
            runs: row.num("runs")?,
        };
        if let Some(delivery) = deliveries.iter_mut().find(|delivery| delivery.id == of) {
            delivery.builds.push(build);
        }
    }
    Ok(())
}
