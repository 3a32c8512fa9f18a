//! Reading from the outbox: what the reporter claims, and what became of it.

use std::time::Duration;

use crate::{
    foreign_text::clip,
    model::{
        ids::ReportId,
        names::NodeName,
        report::{Report, ReportState},
    },
    store::{
        Store, StoreError,
        engine::tx::{Row, Tx, args},
        ms,
        run::runs,
    },
};

/// A report to be delivered.
#[derive(Debug, Clone)]
pub struct ClaimedReport {
    /// Its id.
    pub id: ReportId,
    /// To be shown when telling what became of it: meanwhile a newer state may be wanted.
    pub version: i64,
    /// Failed tries since the last delivery.
    pub tries: u32,
    /// What to say.
    pub report: Report,
    /// The forge's id of the check run of this generation, once there is one.
    pub remote: Option<String>,
}

/// A refused report is tried again this often: whoever mends the permission need do nothing else.
const REFUSED_AGAIN: Duration = Duration::from_secs(3600);

/// The stored word of a report's state.
pub(in crate::store) fn word(state: ReportState) -> &'static str {
    match state {
        ReportState::Queued => "queued",
        ReportState::Running => "running",
        ReportState::Success => "success",
        ReportState::Failure => "failure",
        ReportState::Cancelled => "cancelled",
        ReportState::TimedOut => "timed_out",
        ReportState::Skipped => "skipped",
        ReportState::Error => "error",
    }
}

fn state(row: &Row) -> Result<ReportState, StoreError> {
    const ALL: [ReportState; 8] = [
        ReportState::Queued,
        ReportState::Running,
        ReportState::Success,
        ReportState::Failure,
        ReportState::Cancelled,
        ReportState::TimedOut,
        ReportState::Skipped,
        ReportState::Error,
    ];
    let text = row.text("state")?;
    ALL.into_iter()
        .find(|state| word(*state) == text)
        .ok_or_else(|| row.unreadable("state", format!("`{text}` is no state of a report")))
}

impl Store {
    /// Claims reports that are due, final ones first, each check's newest state. One that cannot be read is not among
    /// them: it counts as refused, and is tried again hourly.
    pub async fn claim_reports(
        &self,
        node: &NodeName,
        limit: u32,
        lease: Duration,
    ) -> Result<Vec<ClaimedReport>, StoreError> {
        let (claimed, unreadable) = in_tx!(self, "claim reports", [node = node.clone()], |tx| claim(
            tx, node, limit, lease
        ))?;
        self.note_unreadable(&unreadable);
        Ok(claimed)
    }

    /// The forge accepted this version; `remote` is its id of the check run.
    pub async fn report_delivered(&self, id: ReportId, version: i64, remote: Option<&str>) -> Result<(), StoreError> {
        in_tx!(
            self,
            "note a delivered report",
            [remote = remote.map(str::to_owned)],
            |tx| { delivered(tx, id, version, remote.as_deref()) }
        )
    }

    /// The forge took no report now; it is due again after `after`.
    pub async fn report_later(
        &self,
        id: ReportId,
        version: i64,
        after: Duration,
        reason: &str,
    ) -> Result<(), StoreError> {
        in_tx!(
            self,
            "put off a report",
            [id = id.to_string(), reason = reason.to_owned()],
            |tx| { put_off(tx, id, version, after, reason, false) }
        )
    }

    /// The forge said no. It is shown on the run's page and tried again hourly, and at once when there
    /// is something new to say.
    pub async fn report_refused(&self, id: ReportId, version: i64, reason: &str) -> Result<(), StoreError> {
        in_tx!(
            self,
            "note a refused report",
            [id = id.to_string(), reason = reason.to_owned()],
            |tx| { put_off(tx, id, version, REFUSED_AGAIN, reason, true) }
        )
    }

    /// When the next report is due, in milliseconds since 1970; none when nothing is owed.
    pub async fn next_report_due(&self) -> Result<Option<i64>, StoreError> {
        let mut tx = self.read_single("look for the next report").await?;
        let row = tx
            .row(
                "SELECT MIN(CASE WHEN lease_until > due_ms THEN lease_until ELSE due_ms END) AS due
                 FROM reports WHERE delivered < version",
                &[],
            )
            .await?;
        row.map_or(Ok(None), |row| row.opt_int("due"))
    }
}

async fn claim(
    tx: &mut Tx,
    node: &NodeName,
    limit: u32,
    lease: Duration,
) -> Result<(Vec<ClaimedReport>, Vec<StoreError>), StoreError> {
    let rows = tx
        .rows(
            "UPDATE reports SET lease_owner = $1, lease_until = $2 WHERE id IN (
                 SELECT id FROM reports WHERE delivered < version AND due_ms <= $3 AND lease_until <= $3
                 ORDER BY CASE WHEN completed_ms IS NULL THEN 1 ELSE 0 END, due_ms, id
                 LIMIT $4 /*pg FOR UPDATE SKIP LOCKED*/)
             RETURNING id, version, tries, connection, repository_id, repository_path, forge_context, commit_sha, name,
                 generation, state, title, summary, run_id, job_id, started_ms, completed_ms, remote",
            args![node, tx.now + ms(lease), tx.now, limit],
        )
        .await?;
    let (mut readable, mut unreadable) = (Vec::with_capacity(rows.len()), Vec::new());
    for row in &rows {
        match claimed(row) {
            Ok(report) => readable.push(report),
            Err(error @ StoreError::Unreadable { .. }) => {
                let (id, version, reason) = (row.text("id")?, row.int("version")?, error.to_string());
                put_off(tx, &id, version, REFUSED_AGAIN, &reason, true).await?;
                unreadable.push(error);
            }
            Err(error) => return Err(error),
        }
    }
    // RETURNING guarantees no order.
    readable.sort_by_key(|c| (!c.report.state.is_final(), c.id));
    Ok((readable, unreadable))
}

fn claimed(row: &Row) -> Result<ClaimedReport, StoreError> {
    let target = runs::check_target(row)?;
    Ok(ClaimedReport {
        id: row.parse("id")?,
        version: row.int("version")?,
        tries: row.num("tries")?,
        remote: row.opt_text("remote")?,
        report: Report {
            repository: target.repository,
            commit: target.commit,
            name: row.text("name")?,
            generation: row.num("generation")?,
            state: state(row)?,
            title: row.text("title")?,
            summary: row.text("summary")?,
            run: row.opt_parse("run_id")?,
            job: row.opt_parse("job_id")?,
            started_ms: row.opt_int("started_ms")?,
            completed_ms: row.opt_int("completed_ms")?,
        },
    })
}

async fn delivered(tx: &mut Tx, id: ReportId, version: i64, remote: Option<&str>) -> Result<(), StoreError> {
    // What was delivered while a new generation began is not that generation's check run.
    tx.execute(
        "UPDATE reports SET lease_until = 0, lease_owner = NULL, tries = 0, reason = NULL, refused = 0,
             due_ms = CASE WHEN due_ms > $4 THEN $4 ELSE due_ms END,
             delivered = $2,
             remote = CASE WHEN since_version <= $2 AND $3 IS NOT NULL THEN $3 ELSE remote END
         WHERE id = $1 AND delivered < $2 AND version >= $2",
        args![id, version, remote, tx.now],
    )
    .await
    .map(drop)
}

async fn put_off(
    tx: &mut Tx,
    id: &str,
    version: i64,
    after: Duration,
    reason: &str,
    refused: bool,
) -> Result<(), StoreError> {
    // A refusal of an old version says nothing of the new one, which is due at once; a pause holds for both.
    tx.execute(
        "UPDATE reports SET lease_until = 0, lease_owner = NULL, tries = tries + 1, reason = $4,
             refused = CASE WHEN version = $2 THEN $5 ELSE 0 END,
             due_ms = CASE WHEN version = $2 OR $5 = 0 THEN $3 ELSE due_ms END
         WHERE id = $1 AND version >= $2 AND delivered < $2",
        args![id, version, tx.now + ms(after), clip(reason, 1000), refused],
    )
    .await
    .map(drop)
}
