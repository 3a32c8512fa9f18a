//! Inspecting a database from outside: nothing is made, migrated or locked.

use std::str::FromStr as _;

use sqlx::{ConnectOptions as _, Connection as _, Row as _, postgres::PgConnectOptions, sqlite::SqliteConnectOptions};

use super::db;
use crate::{config::Database, store::StoreError};

const INSPECT: &str = "inspect the database";

/// The state of a database, read from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Inspection {
    /// No database yet; the daemon makes it.
    Absent,
    /// A database.
    Present {
        /// Its schema's version; 0 when it has none yet.
        version: i64,
        /// The version that this program writes.
        ours: i64,
        /// What SQLite's `quick_check` says, when it is not `ok`.
        damage: Option<String>,
    },
}

/// The schema's version, or 0; the same on both databases but for how a table is found.
macro_rules! version {
    ($connection:expr, $exists:literal) => {
        match sqlx::query($exists).fetch_optional(&mut $connection).await {
            Err(error) => Err(error),
            Ok(None) => Ok(0),
            Ok(Some(_)) => sqlx::query("SELECT CAST(COALESCE(MAX(version), 0) AS BIGINT) FROM schema_versions")
                .fetch_one(&mut $connection)
                .await
                .and_then(|row| row.try_get(0)),
        }
    };
}

/// Inspects a database that a daemon may be using.
///
/// # Errors
/// When it cannot be opened or read.
pub async fn inspect(database: &Database) -> Result<Inspection, StoreError> {
    let failed = |source| StoreError::from_sqlx(INSPECT, source);
    let (version, damage) = match database {
        Database::Sqlite(path) => {
            if !path.exists() {
                return Ok(Inspection::Absent);
            }
            let options = SqliteConnectOptions::new()
                .filename(path)
                .create_if_missing(false)
                .busy_timeout(db::BUSY)
                .pragma("query_only", "1");
            let mut connection = options.connect().await.map_err(failed)?;
            let check = sqlx::query("PRAGMA quick_check(1)").fetch_one(&mut connection).await;
            let check: String = check.and_then(|row| row.try_get(0)).map_err(failed)?;
            let version = version!(connection, "SELECT 1 FROM sqlite_master WHERE name = 'schema_versions'");
            connection.close().await.map_err(failed)?;
            (version, (check != "ok").then_some(check))
        }
        Database::Postgres(url) => {
            let options = PgConnectOptions::from_str(url.expose())
                .map_err(failed)?
                .application_name("helios-ci doctor");
            let connected = tokio::time::timeout(db::BUSY, options.connect()).await;
            let mut connection = connected
                .unwrap_or_else(|_| Err(sqlx::Error::PoolTimedOut))
                .map_err(failed)?;
            let version = version!(connection, "SELECT 1 WHERE to_regclass('schema_versions') IS NOT NULL");
            connection.close().await.map_err(failed)?;
            (version, None)
        }
    };
    Ok(Inspection::Present {
        version: version.map_err(failed)?,
        ours: db::newest(),
        damage,
    })
}
