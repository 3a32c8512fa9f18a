//! Opening the database, migrating it, and handing out transactions.
//!
//! **Why not sqlx's migrator.** It commits each migration by itself, so an upgrade that fails half-way leaves a schema that
//! no version of this program knows; here all that is due, and the record of it, is one transaction. On SQLite a table
//! that is rebuilt needs foreign keys off around that transaction and checked before its end, for which it has no place.
//! It guards Postgres with a lock of the session, which a pooler between (pgbouncer) hands to somebody else; the lock here
//! is the transaction's. And a database that a later version wrote is refused with both versions and what to do.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
    str::FromStr as _,
    sync::Arc,
    time::Duration,
};

use futures::future::BoxFuture;
use sqlx::{
    ConnectOptions as _, Connection as _, PgPool, SqlitePool,
    postgres::{PgConnectOptions, PgPoolOptions},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use super::{
    server_clock::ServerClock,
    tx::{Link, Row, Tx, args},
    writer::{Commit, JOURNAL, Writer},
};
use crate::{clock, config, store::StoreError};

const OPEN: &str = "open the database";
const MIGRATE: &str = "migrate the database";
pub(in crate::store) const BUSY: Duration = Duration::from_secs(10);
const READERS: u32 = 4;
const POSTGRES_CONNECTIONS: u32 = 16;
/// A connection to Postgres that was used within this time is used again without asking whether it still is one.
const FRESH: Duration = Duration::from_secs(5);
/// How often a Postgres transaction is repeated after a conflict with another.
const REPEATS: u32 = 20;
/// The critical section (a Postgres advisory lock) of migrations.
const MIGRATION_SECTION: i64 = 0x6865_6c69_6f73_0001;

/// How much of a database is read when it is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum Check {
    /// All of it: nobody else may have done so.
    Whole,
    /// Its schema's version: a daemon that has it open did the rest.
    Schema,
}

/// A step of the schema: its version, and its statements for either database.
struct Migration {
    version: i64,
    sqlite: &'static str,
    postgres: &'static str,
}

const MIGRATIONS: &[Migration] = &[
    Migration {
        version: 1,
        sqlite: include_str!("../../../migrations/sqlite/0001_initial.sql"),
        postgres: include_str!("../../../migrations/postgres/0001_initial.sql"),
    },
    Migration {
        version: 2,
        sqlite: include_str!("../../../migrations/sqlite/0002_keep.sql"),
        postgres: include_str!("../../../migrations/postgres/0002_keep.sql"),
    },
    Migration {
        version: 3,
        sqlite: include_str!("../../../migrations/sqlite/0003_removals.sql"),
        postgres: include_str!("../../../migrations/postgres/0003_removals.sql"),
    },
    Migration {
        version: 4,
        sqlite: include_str!("../../../migrations/sqlite/0004_deliveries.sql"),
        postgres: include_str!("../../../migrations/postgres/0004_deliveries.sql"),
    },
    Migration {
        version: 5,
        sqlite: include_str!("../../../migrations/sqlite/0005_checks.sql"),
        postgres: include_str!("../../../migrations/postgres/0005_checks.sql"),
    },
    Migration {
        version: 6,
        sqlite: include_str!("../../../migrations/sqlite/0006_repository_ids.sql"),
        postgres: include_str!("../../../migrations/postgres/0006_repository_ids.sql"),
    },
    Migration {
        version: 7,
        sqlite: include_str!("../../../migrations/sqlite/0007_job_plans.sql"),
        postgres: include_str!("../../../migrations/postgres/0007_job_plans.sql"),
    },
    Migration {
        version: 8,
        sqlite: include_str!("../../../migrations/sqlite/0008_report_lanes.sql"),
        postgres: include_str!("../../../migrations/postgres/0008_report_lanes.sql"),
    },
    Migration {
        version: 9,
        sqlite: include_str!("../../../migrations/sqlite/0009_refused.sql"),
        postgres: include_str!("../../../migrations/postgres/0009_refused.sql"),
    },
    Migration {
        version: 10,
        sqlite: include_str!("../../../migrations/sqlite/0010_queue_depth.sql"),
        postgres: include_str!("../../../migrations/postgres/0010_queue_depth.sql"),
    },
];

/// The version that this program brings a database to.
pub(in crate::store) fn newest() -> i64 {
    MIGRATIONS.last().map_or(0, |migration| migration.version)
}

/// The connections to the database.
pub(in crate::store) enum Pool {
    /// One writer, several readers.
    Sqlite {
        /// The only way to change anything.
        writer: Writer,
        /// Read-only connections.
        readers: SqlitePool,
    },
    /// Ordinary transactions.
    Postgres {
        /// The connections.
        pool: PgPool,
        /// The server's time, for reads, which would else ask for it first.
        clock: ServerClock,
    },
}

impl Pool {
    /// Opens, checks and migrates.
    pub(in crate::store) async fn open(db: &config::Database, check: Check) -> Result<Self, StoreError> {
        match db {
            config::Database::Sqlite(path) => open_sqlite(path, check).await,
            config::Database::Postgres(url) => {
                let options = PgConnectOptions::from_str(url.expose())
                    .map_err(|source| StoreError::from_sqlx(OPEN, source))?
                    .application_name("helios-ci");
                let pool = PgPoolOptions::new()
                    .max_connections(POSTGRES_CONNECTIONS)
                    .acquire_timeout(BUSY)
                    // Asking is a round trip before each statement; a connection breaks while it is idle.
                    .test_before_acquire(false)
                    .before_acquire(|connection, about| {
                        Box::pin(async move { Ok(about.idle_for < FRESH || connection.ping().await.is_ok()) })
                    })
                    .connect_with(options)
                    .await
                    .map_err(|source| StoreError::from_sqlx(OPEN, source))?;
                let mut tx = begin_postgres(&pool, MIGRATE).await?;
                migrate(&mut tx).await?;
                let clock = ServerClock::new(read_clock(&mut tx).await?);
                commit(tx).await?;
                Ok(Self::Postgres { pool, clock })
            }
        }
    }

    /// A snapshot to read from; dropping it ends it.
    pub(in crate::store) async fn read(&self, what: &'static str) -> Result<Tx, StoreError> {
        match self {
            Self::Sqlite { readers, .. } => {
                let link = readers
                    .begin()
                    .await
                    .map_err(|source| StoreError::from_sqlx(what, source))?;
                Ok(Tx {
                    link: Link::Reader(link),
                    what,
                    now: clock::now_ms(),
                })
            }
            Self::Postgres { pool, clock } => {
                let link = pool
                    .begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY")
                    .await
                    .map_err(|source| StoreError::from_sqlx(what, source))?;
                Ok(Tx {
                    link: Link::Postgres(link),
                    what,
                    now: clock.now_ms(),
                })
            }
        }
    }

    /// As [`Pool::read`], for one statement alone, which is a snapshot by itself: on Postgres it is one round trip.
    pub(in crate::store) async fn read_single(&self, what: &'static str) -> Result<Tx, StoreError> {
        match self {
            Self::Sqlite { readers, .. } => {
                let link = readers
                    .acquire()
                    .await
                    .map_err(|source| StoreError::from_sqlx(what, source))?;
                Ok(Tx {
                    link: Link::Single(link),
                    what,
                    now: clock::now_ms(),
                })
            }
            Self::Postgres { pool, clock } => {
                let link = pool
                    .acquire()
                    .await
                    .map_err(|source| StoreError::from_sqlx(what, source))?;
                Ok(Tx {
                    link: Link::PostgresSingle(link),
                    what,
                    now: clock.now_ms(),
                })
            }
        }
    }

    /// Runs `operation` in a transaction of its own; `Ok` means that it is committed, and on the disk as `commit` says. It may
    /// run more than once, each time from the beginning. On Postgres every commit is on the server's disk, whatever `commit`
    /// says.
    pub(in crate::store) async fn write<T, F>(
        &self,
        what: &'static str,
        commit: Commit,
        operation: F,
    ) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: for<'t> Fn(&'t mut Tx) -> BoxFuture<'t, Result<T, StoreError>> + Send + Sync + 'static,
    {
        match self {
            Self::Sqlite { writer, .. } => writer.run(what, commit, Arc::new(operation)).await,
            Self::Postgres { pool, clock } => {
                let mut repeats = 0;
                loop {
                    match attempt(pool, clock, what, &operation).await {
                        Err(error) if error.is_conflict() && repeats < REPEATS => {
                            repeats += 1;
                            let pause = rand::random_range(0..=u64::from(repeats) * 5);
                            tokio::time::sleep(Duration::from_millis(pause)).await;
                        }
                        result => return result,
                    }
                }
            }
        }
    }

    /// Waits for what is under way and closes everything.
    pub(in crate::store) async fn close(&self) {
        match self {
            Self::Sqlite { writer, readers } => {
                readers.close().await;
                writer.close().await;
            }
            Self::Postgres { pool, .. } => pool.close().await,
        }
    }
}

async fn attempt<T, F>(pool: &PgPool, clock: &ServerClock, what: &'static str, operation: &F) -> Result<T, StoreError>
where
    F: for<'t> Fn(&'t mut Tx) -> BoxFuture<'t, Result<T, StoreError>>,
{
    let mut tx = begin_postgres(pool, what).await?;
    tx.now = read_clock(&mut tx).await?;
    clock.set(tx.now);
    let result = operation(&mut tx).await?;
    commit(tx).await?;
    Ok(result)
}

async fn begin_postgres(pool: &PgPool, what: &'static str) -> Result<Tx, StoreError> {
    let link = pool
        .begin()
        .await
        .map_err(|source| StoreError::from_sqlx(what, source))?;
    Ok(Tx {
        link: Link::Postgres(link),
        what,
        now: 0,
    })
}

async fn commit(tx: Tx) -> Result<(), StoreError> {
    let what = tx.what;
    match tx.link {
        Link::Postgres(link) => link
            .commit()
            .await
            .map_err(|source| StoreError::from_sqlx(what, source)),
        Link::Writer(_) | Link::Reader(_) | Link::Single(_) | Link::PostgresSingle(_) => Ok(()),
    }
}

/// The server's clock: what nodes agree on leases by.
async fn read_clock(tx: &mut Tx) -> Result<i64, StoreError> {
    const CLOCK: &str = "SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT) AS now";
    let row = tx.row(CLOCK, &[]).await?;
    row.map_or(Ok(clock::now_ms()), |row| row.int("now"))
}

async fn open_sqlite(path: &Path, check: Check) -> Result<Pool, StoreError> {
    create_private(path)?;
    let options = SqliteConnectOptions::new()
        .filename(path)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .pragma("wal_autocheckpoint", JOURNAL)
        .busy_timeout(BUSY);
    let connection = options
        .connect()
        .await
        .map_err(|source| StoreError::from_sqlx(OPEN, source))?;
    let mut tx = Tx {
        link: Link::Writer(connection),
        what: OPEN,
        now: clock::now_ms(),
    };
    if check == Check::Whole {
        check_integrity(&mut tx).await?;
    }
    tx.what = MIGRATE;
    // A table that is rebuilt is dropped first, which would take along every row that refers to it. The switch does
    // nothing inside a transaction.
    tx.execute("PRAGMA foreign_keys = OFF", &[]).await?;
    tx.execute("BEGIN IMMEDIATE", &[]).await?;
    // It reads all rows, which only a migration can have broken.
    if migrate(&mut tx).await?
        && let Some(row) = tx.row("PRAGMA foreign_key_check", &[]).await?
    {
        return Err(StoreError::Internal {
            what: MIGRATE,
            reason: format!(
                "a row of `{}` refers to one of `{}` that does not exist",
                row.text("table")?,
                row.text("parent")?
            ),
        });
    }
    tx.execute("COMMIT", &[]).await?;
    tx.execute("PRAGMA foreign_keys = ON", &[]).await?;
    let readers = SqlitePoolOptions::new()
        .max_connections(READERS)
        .acquire_timeout(BUSY)
        // A file's connection does not break by itself; asking it first doubles the cost of a short read.
        .test_before_acquire(false)
        .connect_with(options.read_only(true))
        .await
        .map_err(|source| StoreError::from_sqlx(OPEN, source))?;
    match tx.link {
        Link::Writer(connection) => Ok(Pool::Sqlite {
            writer: Writer::start(connection),
            readers,
        }),
        Link::Reader(_) | Link::Single(_) | Link::Postgres(_) | Link::PostgresSingle(_) => {
            Err(StoreError::Closed { what: OPEN })
        }
    }
}

/// Makes sure that the file exists and that only its owner can read it: it holds what people wrote in
/// private repositories. SQLite gives its journal the same mode.
fn create_private(path: &Path) -> Result<(), StoreError> {
    let opened = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path);
    let file = opened.map_err(|e| StoreError::location(path, e.to_string()))?;
    let metadata = file.metadata().map_err(|e| StoreError::location(path, e.to_string()))?;
    if !metadata.is_file() {
        return Err(StoreError::location(path, "it is not a regular file"));
    }
    // Made by root, for a daemon that is another user; SQLite gives the files beside it to the same one.
    let directory = path.parent().and_then(|parent| fs::metadata(parent).ok());
    if let Some(owner) = directory.filter(|owner| metadata.uid() == 0 && owner.uid() != 0 && metadata.len() == 0) {
        std::os::unix::fs::fchown(&file, Some(owner.uid()), Some(owner.gid()))
            .map_err(|e| StoreError::location(path, format!("it cannot be given to the directory's owner: {e}")))?;
    }
    if metadata.permissions().mode() & 0o077 != 0 {
        file.set_permissions(fs::Permissions::from_mode(0o600))
            .map_err(|e| StoreError::location(path, format!("others can read it, and that cannot be changed: {e}")))?;
    }
    Ok(())
}

async fn check_integrity(tx: &mut Tx) -> Result<(), StoreError> {
    let rows = tx.rows("PRAGMA quick_check(5)", &[]).await?;
    let words: Vec<String> = rows
        .iter()
        .map(|row| row.text("quick_check"))
        .collect::<Result<_, _>>()?;
    if words == ["ok"] {
        return Ok(());
    }
    Err(StoreError::Corrupt { what: words.join("; ") })
}

/// Brings the schema up to date inside the caller's transaction: all of it or nothing, and one
/// process at a time. Whether there was anything to do.
async fn migrate(tx: &mut Tx) -> Result<bool, StoreError> {
    tx.exclusive(MIGRATION_SECTION).await?;
    tx.execute(
        "CREATE TABLE IF NOT EXISTS schema_versions (version BIGINT PRIMARY KEY, applied_ms BIGINT NOT NULL)",
        &[],
    )
    .await?;
    let found = tx
        .row(
            "SELECT CAST(COALESCE(MAX(version), 0) AS BIGINT) AS version FROM schema_versions",
            &[],
        )
        .await?
        .map_or(Ok(0), |row: Row| row.int("version"))?;
    let known = MIGRATIONS.last().map_or(0, |m| m.version);
    if found > known {
        return Err(StoreError::Newer { found, known });
    }
    for migration in MIGRATIONS.iter().filter(|m| m.version > found) {
        let result = match &mut tx.link {
            Link::Writer(c) => sqlx::raw_sql(migration.sqlite).execute(c).await.map(drop),
            Link::Reader(c) => sqlx::raw_sql(migration.sqlite).execute(&mut **c).await.map(drop),
            Link::Single(c) => sqlx::raw_sql(migration.sqlite).execute(&mut **c).await.map(drop),
            Link::Postgres(c) => sqlx::raw_sql(migration.postgres).execute(&mut **c).await.map(drop),
            Link::PostgresSingle(c) => sqlx::raw_sql(migration.postgres).execute(&mut **c).await.map(drop),
        };
        result.map_err(|source| StoreError::from_sqlx(MIGRATE, source))?;
        tx.execute(
            "INSERT INTO schema_versions (version, applied_ms) VALUES ($1, $2)",
            args![migration.version, clock::now_ms()],
        )
        .await?;
    }
    Ok(found < known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_made_by_root_is_the_directory_owners() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        if nix::unistd::geteuid().is_root() {
            std::os::unix::fs::chown(dir.path(), Some(12_345), Some(12_345)).unwrap();
        }
        create_private(&path).unwrap();
        let (made, owner) = (fs::metadata(&path).unwrap(), fs::metadata(dir.path()).unwrap());
        assert_eq!((made.uid(), made.mode() & 0o777), (owner.uid(), 0o600));
    }
}
