//! What the refs at a forge point at, compared with the pushes that are known: what was missed while a connection
//! was broken, or the daemon away.

use std::{collections::HashMap, time::Duration};

use super::deliveries::{AUTOMATIC_ROWS, open};
use crate::{
    foreign_text::clip,
    model::{
        ids::DeliveryId,
        names::{CommitSha, ConnectionId, ForgeContext, RefName, RepoPath, RepositoryId},
        trigger::Repository,
    },
    store::{
        Store, StoreError,
        engine::tx::{Row, Tx, args},
        ms,
    },
};

/// What a ref at a forge points at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tip {
    /// A branch or tag.
    pub ref_name: RefName,
    /// The commit.
    pub commit: CommitSha,
    /// The annotated tag's own id; the commit again where the ref is none. Pushes name this one.
    pub object: CommitSha,
}

/// A push that led to nothing because the connection or its configuration kept it from running.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldPush {
    /// The delivery.
    pub delivery: DeliveryId,
    /// The ref that was pushed.
    pub ref_name: RefName,
    /// What the push says that it points at.
    pub commit: CommitSha,
}

/// A ref at a forge whose tip no run was ever planned for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missed {
    /// The repository.
    pub repository: Repository,
    /// The branch or tag.
    pub ref_name: RefName,
    /// What it pointed at when it was compared.
    pub commit: CommitSha,
    /// When it was seen for the first time, in milliseconds since 1970.
    pub seen_ms: i64,
}

/// How the comparison of a repository went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Comparison {
    /// The repository.
    pub repository: Repository,
    /// When it last succeeded, in milliseconds since 1970.
    pub at_ms: Option<i64>,
    /// When it was last tried.
    pub tried_ms: i64,
    /// Why the last one did not succeed.
    pub reason: Option<String>,
}

/// Repositories of one connection that are compared, the newest first.
const REPOSITORIES: u32 = 500;
/// Missed refs that are listed.
const MISSED: u32 = 500;

impl Store {
    /// The repositories that this connection's deliveries and triggers have named, the newest 500.
    pub async fn known_repositories(&self, connection: &ConnectionId) -> Result<Vec<Repository>, StoreError> {
        let mut tx = self.read("list repositories").await?;
        let mut found: Vec<Repository> = Vec::new();
        // Deliveries first: they name the newest path. Runs know the forge's context, and what was asked for by hand.
        for sql in [
            "SELECT d.repository_id, d.repository_path,
                 COALESCE((SELECT r.forge_context FROM runs r WHERE r.connection = $1
                     AND r.repository_id = d.repository_id ORDER BY r.id DESC LIMIT 1), '') AS forge_context
             FROM deliveries d
             WHERE d.seq IN (SELECT MAX(n.seq) FROM deliveries n
                 WHERE n.connection = $1 AND n.repository_id IS NOT NULL AND n.repository_path IS NOT NULL
                 GROUP BY n.repository_id)
             ORDER BY d.seq DESC LIMIT $2",
            "SELECT r.repository_id, r.repository_path, r.forge_context FROM runs r
             WHERE r.id IN (SELECT MAX(n.id) FROM runs n WHERE n.connection = $1 GROUP BY n.repository_id)
             ORDER BY r.id DESC LIMIT $2",
        ] {
            for row in tx.rows(sql, args![connection, REPOSITORIES]).await? {
                let id: RepositoryId = row.parse("repository_id")?;
                if found.iter().all(|known| known.id != id) {
                    found.push(Repository {
                        connection: connection.clone(),
                        id,
                        path: row.parse("repository_path")?,
                        context: row.parse("forge_context")?,
                    });
                }
            }
        }
        found.truncate(REPOSITORIES as usize);
        Ok(found)
    }

    /// Notes what a repository's refs point at now. What is there at the first time counts as known, except refs that
    /// pushes are known of: for these there is something to compare with.
    pub async fn compared(&self, repository: &Repository, tips: Vec<Tip>) -> Result<(), StoreError> {
        in_tx!(
            self,
            "compare a repository's refs",
            [repository = repository.clone(), tips = tips],
            |tx| { compared(tx, repository, tips) }
        )
    }

    /// Whether a repository is to be compared between the regular times: its refs never were, or a push of it is held,
    /// and the last try did not fail just now. Each that fails makes the next wait twice as long, up to six hours.
    pub async fn comparison_due(&self, repository: &Repository) -> Result<bool, StoreError> {
        let mut tx = self.read_single("look for a comparison").await?;
        let row = tx
            .row(
                "SELECT at_ms, tried_ms, failures FROM comparisons WHERE connection = $1 AND repository_id = $2",
                args![&repository.connection, &repository.id],
            )
            .await?;
        let Some(row) = row else { return Ok(true) };
        if tx.now < row.int("tried_ms")? + ms(wait_after(row.num("failures")?)) {
            return Ok(false);
        }
        drop(tx);
        Ok(row.opt_int("at_ms")?.is_none() || !self.held_pushes(repository).await?.is_empty())
    }

    /// Notes why a repository's refs could not be compared.
    pub async fn not_compared(&self, repository: &Repository, reason: &str) -> Result<(), StoreError> {
        in_tx!(
            self,
            "note that refs were not compared",
            [repository = repository.clone(), reason = clip(reason, 2000).to_owned()],
            |tx| { note(tx, repository, Some(reason)) }
        )
    }

    /// The pushes of a repository that led to nothing because of the connection or its configuration, where nothing
    /// newer is known of the ref.
    pub async fn held_pushes(&self, repository: &Repository) -> Result<Vec<HeldPush>, StoreError> {
        let mut tx = self.read("look for pushes that are held").await?;
        let rows = tx
            .rows(
                concat!(
                    "SELECT d.id, d.ref_name, d.commit_sha FROM deliveries d
                     WHERE d.connection = $1 AND d.repository_id = $2 AND d.ref_name IS NOT NULL
                         AND d.commit_sha IS NOT NULL AND d.body IS NOT NULL AND d.deletion = 0 AND d.number < $3
                         AND NOT EXISTS (SELECT 1 FROM deliveries n WHERE n.connection = $1 AND n.repository_id = $2
                             AND n.ref_name = d.ref_name AND n.seq > d.seq)
                         AND NOT EXISTS (SELECT 1 FROM triggers t WHERE t.connection = $1 AND t.repository_id = $2
                             AND t.ref_name = d.ref_name AND (t.state = 'received'
                                 OR t.state = 'planned' AND (t.commit_sha = d.commit_sha
                                     OR t.commit_sha = (SELECT p.commit_sha FROM tips p WHERE p.connection = $1
                                         AND p.repository_id = $2 AND p.ref_name = d.ref_name
                                         AND p.object_sha = d.commit_sha)))) AND ",
                    open!("'automatic'"),
                    " ORDER BY d.seq"
                ),
                args![&repository.connection, &repository.id, AUTOMATIC_ROWS],
            )
            .await?;
        rows.iter()
            .map(|row| {
                Ok(HeldPush {
                    delivery: row.parse("id")?,
                    ref_name: row.parse("ref_name")?,
                    commit: row.parse("commit_sha")?,
                })
            })
            .collect()
    }

    /// Makes everything due that waits for this connection to work again.
    pub async fn connection_works(&self, connection: &ConnectionId) -> Result<(), StoreError> {
        in_tx!(
            self,
            "take up what waited for a connection",
            [connection = connection.clone()],
            |tx| { works(tx, connection) }
        )
    }

    /// Makes everything due that waits for a right to this repository.
    pub async fn repository_works(&self, repository: &Repository) -> Result<(), StoreError> {
        in_tx!(
            self,
            "take up what waited for a right to a repository",
            [repository = repository.clone()],
            |tx| { right_given(tx, repository) }
        )
    }

    /// The refs whose tips no run was planned for, by repository.
    pub async fn missed(&self) -> Result<Vec<Missed>, StoreError> {
        let mut tx = self.read("list what was missed").await?;
        let rows = tx
            .rows(
                "SELECT p.connection, p.repository_id, c.repository_path, p.ref_name, p.commit_sha, p.seen_ms
                 FROM tips p JOIN comparisons c ON c.connection = p.connection AND c.repository_id = p.repository_id
                 WHERE p.known = 0
                     AND NOT EXISTS (SELECT 1 FROM triggers t WHERE t.connection = p.connection
                         AND t.repository_id = p.repository_id AND t.ref_name = p.ref_name
                         AND (t.state = 'received'
                             OR t.state = 'planned' AND t.commit_sha IN (p.commit_sha, p.object_sha)
                             OR t.state = 'ignored' AND t.commit_sha IN (p.commit_sha, p.object_sha)))
                     AND NOT EXISTS (SELECT 1 FROM deliveries d WHERE d.connection = p.connection
                         AND d.repository_id = p.repository_id AND d.ref_name = p.ref_name AND d.state = 'received')
                 ORDER BY c.repository_path, p.connection, p.ref_name LIMIT $1",
                args![MISSED],
            )
            .await?;
        rows.iter()
            .map(|row| {
                Ok(Missed {
                    repository: repository_of(row)?,
                    ref_name: row.parse("ref_name")?,
                    commit: row.parse("commit_sha")?,
                    seen_ms: row.int("seen_ms")?,
                })
            })
            .collect()
    }

    /// How the last comparisons went.
    pub async fn comparisons(&self) -> Result<Vec<Comparison>, StoreError> {
        let mut tx = self.read("list comparisons").await?;
        let rows = tx
            .rows(
                "SELECT connection, repository_id, repository_path, at_ms, tried_ms, reason FROM comparisons
                 ORDER BY repository_path, connection LIMIT $1",
                args![MISSED],
            )
            .await?;
        rows.iter()
            .map(|row| {
                Ok(Comparison {
                    repository: repository_of(row)?,
                    at_ms: row.opt_int("at_ms")?,
                    tried_ms: row.int("tried_ms")?,
                    reason: row.opt_text("reason")?,
                })
            })
            .collect()
    }
}

/// How long after so many failures in a row a repository is tried again.
fn wait_after(failures: u32) -> Duration {
    const FIRST: Duration = Duration::from_secs(600);
    const LONGEST: Duration = Duration::from_secs(6 * 3600);
    match failures.checked_sub(1) {
        None => Duration::ZERO,
        Some(doublings) => FIRST.saturating_mul(1 << doublings.min(10)).min(LONGEST),
    }
}

fn repository_of(row: &Row) -> Result<Repository, StoreError> {
    let path: RepoPath = row.parse("repository_path")?;
    Ok(Repository {
        connection: row.parse("connection")?,
        id: row.parse("repository_id")?,
        path,
        context: ForgeContext::default(),
    })
}

async fn note(tx: &mut Tx, repository: &Repository, reason: Option<&str>) -> Result<(), StoreError> {
    let at = reason.is_none().then_some(tx.now);
    tx.execute(
        "INSERT INTO comparisons (connection, repository_id, repository_path, at_ms, tried_ms, reason, failures)
         VALUES ($1, $2, $3, $4, $5, $6, $7)
         ON CONFLICT (connection, repository_id) DO UPDATE SET repository_path = excluded.repository_path,
             at_ms = COALESCE(excluded.at_ms, comparisons.at_ms), tried_ms = excluded.tried_ms,
             reason = excluded.reason,
             failures = CASE WHEN excluded.failures = 0 THEN 0 ELSE comparisons.failures + 1 END",
        args![
            &repository.connection,
            &repository.id,
            &repository.path,
            at,
            tx.now,
            reason,
            reason.is_some()
        ],
    )
    .await
    .map(drop)
}

async fn was_compared(tx: &mut Tx, repository: &Repository) -> Result<bool, StoreError> {
    let row = tx
        .row(
            "SELECT at_ms FROM comparisons WHERE connection = $1 AND repository_id = $2 AND at_ms IS NOT NULL",
            args![&repository.connection, &repository.id],
        )
        .await?;
    Ok(row.is_some())
}

async fn compared(tx: &mut Tx, repository: &Repository, tips: &[Tip]) -> Result<(), StoreError> {
    let (connection, id) = (&repository.connection, &repository.id);
    let first = !was_compared(tx, repository).await?;
    note(tx, repository, None).await?;
    let rows = tx
        .rows(
            "SELECT ref_name, commit_sha, object_sha FROM tips WHERE connection = $1 AND repository_id = $2",
            args![connection, id],
        )
        .await?;
    let mut gone = HashMap::with_capacity(rows.len());
    for row in &rows {
        gone.insert(
            row.text("ref_name")?,
            (row.text("commit_sha")?, row.text("object_sha")?),
        );
    }
    // Most stay from one comparison to the next, and need no write.
    for tip in tips {
        let known = gone.remove(tip.ref_name.as_str());
        if known.is_none_or(|(commit, object)| {
            (commit.as_str(), object.as_str()) != (tip.commit.as_str(), tip.object.as_str())
        }) {
            store_tip(tx, repository, tip, first).await?;
        }
    }
    for name in gone.into_keys() {
        tx.execute(
            "DELETE FROM tips WHERE connection = $1 AND repository_id = $2 AND ref_name = $3",
            args![connection, id, name],
        )
        .await?;
    }
    // What was planned is known for good, also when its trigger is forgotten one day.
    tx.execute(
        "UPDATE tips SET known = 1 WHERE connection = $1 AND repository_id = $2 AND known = 0
             AND EXISTS (SELECT 1 FROM triggers t WHERE t.connection = $1 AND t.repository_id = $2
                 AND t.ref_name = tips.ref_name AND t.state IN ('planned', 'ignored')
                 AND t.commit_sha IN (tips.commit_sha, tips.object_sha))",
        args![connection, id],
    )
    .await
    .map(drop)
}

/// Stores a tip that is new or moved. What is there at the `first` comparison is known, unless triggers of its ref are;
/// a tip that moved is not. Where only the commit is another (of the same tag object), `known` stays.
async fn store_tip(tx: &mut Tx, repository: &Repository, tip: &Tip, first: bool) -> Result<(), StoreError> {
    tx.execute(
        "INSERT INTO tips (connection, repository_id, ref_name, commit_sha, object_sha, known, seen_ms)
         VALUES ($1, $2, $3, $4, $5, CASE WHEN $6 = 1 AND NOT EXISTS (SELECT 1 FROM triggers t
             WHERE t.connection = $1 AND t.repository_id = $2 AND t.ref_name = $3) THEN 1 ELSE 0 END, $7)
         ON CONFLICT (connection, repository_id, ref_name) DO UPDATE SET
             known = CASE WHEN tips.object_sha = excluded.object_sha THEN tips.known ELSE 0 END,
             seen_ms = CASE WHEN tips.object_sha = excluded.object_sha THEN tips.seen_ms ELSE excluded.seen_ms END,
             commit_sha = excluded.commit_sha, object_sha = excluded.object_sha",
        args![
            &repository.connection,
            &repository.id,
            &tip.ref_name,
            &tip.commit,
            &tip.object,
            i64::from(first),
            tx.now
        ],
    )
    .await
    .map(drop)
}

async fn works(tx: &mut Tx, connection: &ConnectionId) -> Result<(), StoreError> {
    tx.execute(
        "UPDATE triggers SET due_ms = $2 WHERE connection = $1 AND state = 'received' AND due_ms > $2",
        args![connection, tx.now],
    )
    .await?;
    tx.execute(
        "UPDATE reports SET due_ms = $2 WHERE connection = $1 AND delivered < version AND refused = 1 AND due_ms > $2",
        args![connection, tx.now],
    )
    .await
    .map(drop)
}

async fn right_given(tx: &mut Tx, repository: &Repository) -> Result<(), StoreError> {
    let (connection, id) = (&repository.connection, &repository.id);
    tx.execute(
        "UPDATE triggers SET due_ms = $3 WHERE connection = $1 AND repository_id = $2 AND state = 'received'
             AND refused_ms IS NOT NULL AND due_ms > $3",
        args![connection, id, tx.now],
    )
    .await?;
    tx.execute(
        "UPDATE reports SET due_ms = $3 WHERE connection = $1 AND repository_id = $2 AND delivered < version
             AND refused = 1 AND due_ms > $3",
        args![connection, id, tx.now],
    )
    .await
    .map(drop)
}
