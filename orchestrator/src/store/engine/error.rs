//! What can go wrong with the database, as its administrator must read it.

use std::{path::Path, sync::Arc};

/// A failed store operation. Nothing of it was stored.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The database refused or could not be reached.
    #[error("cannot {what} in the database")]
    Database {
        /// What was tried: `claim a job`.
        what: &'static str,
        /// The database's own words.
        #[source]
        source: Arc<sqlx::Error>,
    },
    /// The disk below the database is full.
    #[error(
        "cannot {what}: the disk that holds the database is full; free some space, the daemon then goes on by itself"
    )]
    Full {
        /// What was tried.
        what: &'static str,
    },
    /// Another process holds the database's write lock for too long.
    #[error(
        "cannot {what}: another process keeps the database locked; look for a second daemon or an open database shell"
    )]
    Busy {
        /// What was tried.
        what: &'static str,
    },
    /// A later version of helios-ci wrote this database.
    #[error(
        "the database has schema version {found}, and this version of helios-ci knows up to {known}: \
         run the newer version, or restore the backup that was made before the upgrade"
    )]
    Newer {
        /// The schema's version.
        found: i64,
        /// The newest version this program knows.
        known: i64,
    },
    /// The database's file is damaged: SQLite says so, of the file as a whole or of one of its pages.
    #[error(
        "the database is damaged: {what}. It is left as it is; restore a backup (docs/operations.md, \"Backup\") \
         or move the file away to begin with an empty one"
    )]
    Corrupt {
        /// SQLite's own words.
        what: String,
    },
    /// The file is sound, and one value in it is none that this program writes. Everything that does not need the
    /// row goes on.
    #[error(
        "cannot {what}: a row of the database has a value in `{column}` that this version of helios-ci cannot read \
         ({reason}). Only what needs this row is affected. Run the version that wrote it, if a newer one did; else \
         look for a change that was made by hand (docs/operations.md, \"Backup\", says how to restore)"
    )]
    Unreadable {
        /// What was tried.
        what: &'static str,
        /// The column.
        column: String,
        /// What is wrong with its value.
        reason: String,
    },
    /// The file or directory of the database cannot be used.
    #[error("cannot use {path} for the database: {reason}")]
    Location {
        /// The file or its directory.
        path: String,
        /// Why, and what to do.
        reason: String,
    },
    /// The store has been closed: the daemon is going down.
    #[error("cannot {what}: the database has been closed")]
    Closed {
        /// What was tried.
        what: &'static str,
    },
    /// A mistake in this program: values or rows contradict each other. Nothing was stored, and neither a backup nor
    /// a restart is of any use.
    #[error("cannot {what}: {reason}. This is a mistake in helios-ci, not in the database: please report these words")]
    Internal {
        /// What was tried.
        what: &'static str,
        /// Which rule was broken.
        reason: String,
    },
}

/// Primary SQLite result codes, from its documentation.
const SQLITE_BUSY: i32 = 5;
const SQLITE_LOCKED: i32 = 6;
const SQLITE_CORRUPT: i32 = 11;
const SQLITE_FULL: i32 = 13;
const SQLITE_NOTADB: i32 = 26;

/// SQLSTATE classes and codes of Postgres.
const PG_DISK_FULL: &str = "53100";
const PG_SERIALIZATION: &str = "40001";
const PG_DEADLOCK: &str = "40P01";

impl StoreError {
    /// Sorts a database error into the kinds above.
    pub(in crate::store) fn from_sqlx(what: &'static str, source: sqlx::Error) -> Self {
        let code = source
            .as_database_error()
            .and_then(|e| e.code().map(|c| c.into_owned()));
        // SQLite reports extended codes; the low byte is the primary one. SQLSTATEs have five places.
        let sqlite = code
            .as_deref()
            .filter(|c| c.len() < 5)
            .and_then(|c| c.parse::<i32>().ok())
            .map(|c| c & 0xff);
        match (sqlite, code.as_deref()) {
            (Some(SQLITE_FULL), _) | (None, Some(PG_DISK_FULL)) => Self::Full { what },
            (Some(SQLITE_BUSY | SQLITE_LOCKED), _) => Self::Busy { what },
            (Some(SQLITE_CORRUPT | SQLITE_NOTADB), _) => Self::Corrupt {
                what: source.to_string(),
            },
            _ if matches!(source, sqlx::Error::PoolClosed) => Self::Closed { what },
            _ => Self::Database {
                what,
                source: Arc::new(source),
            },
        }
    }

    /// Whether Postgres gave up one of two transactions that were in each other's way; repeating it helps.
    pub(in crate::store) fn is_conflict(&self) -> bool {
        let Self::Database { source, .. } = self else {
            return false;
        };
        source
            .as_database_error()
            .and_then(|e| e.code())
            .is_some_and(|c| c == PG_SERIALIZATION || c == PG_DEADLOCK)
    }

    pub(in crate::store) fn location(path: &Path, reason: impl Into<String>) -> Self {
        Self::Location {
            path: path.display().to_string(),
            reason: reason.into(),
        }
    }
}
