//! One open transaction, on either database. Every statement is written once, in the SQL that both
//! understand: `$N` parameters, `BIGINT`, `TEXT` and bytes, `RETURNING`, `ON CONFLICT`. What only
//! Postgres needs stands in a comment that SQLite skips: `/*pg FOR UPDATE SKIP LOCKED*/`.

use std::{borrow::Cow, fmt, str::FromStr};

use serde::de::DeserializeOwned;
use sqlx::{
    AssertSqlSafe, Postgres, Row as _, Sqlite, SqliteConnection, Transaction, pool::PoolConnection, postgres::PgRow,
    sqlite::SqliteRow,
};

use crate::{
    model::{ids, names, state},
    store::StoreError,
};

/// The transaction's connection.
pub(in crate::store) enum Link {
    /// The SQLite writer's own connection, inside a savepoint.
    Writer(SqliteConnection),
    /// A snapshot for reading.
    Reader(Transaction<'static, Sqlite>),
    /// A connection for reading with one statement, which is a snapshot by itself.
    Single(PoolConnection<Sqlite>),
    /// A Postgres transaction, for either.
    Postgres(Transaction<'static, Postgres>),
    /// A connection to Postgres for reading with one statement, outside any transaction.
    PostgresSingle(PoolConnection<Postgres>),
}

/// A transaction: what all aggregates work with.
pub(in crate::store) struct Tx {
    /// The connection.
    pub(in crate::store) link: Link,
    /// What is being done, for error messages: `claim a job`.
    pub(in crate::store) what: &'static str,
    /// When the transaction began: the database's clock in Postgres, so that nodes agree on leases.
    pub(in crate::store) now: i64,
}

/// A parameter.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::store) enum Value {
    /// Numbers and truth values.
    Int(Option<i64>),
    /// Text, ids, names, states, JSON.
    Text(Option<String>),
    /// Bytes.
    Blob(Option<Vec<u8>>),
}

impl Value {
    /// Text from outside may hold NUL, which Postgres cannot store.
    fn text(text: &str) -> Self {
        Self::Text(Some(text.replace('\0', "\u{fffd}")))
    }
}

macro_rules! values {
    (int: $($int:ty),*; text: $($text:ty),*; blob: $($blob:ty),*) => {
        $(impl From<$int> for Value { fn from(v: $int) -> Self { Self::Int(Some(v.into())) } }
          impl From<Option<$int>> for Value { fn from(v: Option<$int>) -> Self { Self::Int(v.map(Into::into)) } })*
        $(impl From<$text> for Value { fn from(v: $text) -> Self { Self::text(&v.to_string()) } }
          impl From<&$text> for Value { fn from(v: &$text) -> Self { Self::text(&v.to_string()) } }
          impl From<Option<$text>> for Value { fn from(v: Option<$text>) -> Self { v.map_or(Self::Text(None), Into::into) } }
          impl From<&Option<$text>> for Value {
              fn from(v: &Option<$text>) -> Self { v.as_ref().map_or(Self::Text(None), Into::into) }
          })*
        $(impl From<$blob> for Value { fn from(v: $blob) -> Self { Self::Blob(Some(v.to_vec())) } })*
    };
}

values! {
    int: i64, u32, i32, bool;
    text: String, ids::DeliveryId, ids::TriggerId, ids::RunId, ids::JobId, ids::AttemptId, ids::ReportId, ids::TokenId,
        ids::InstanceId, names::ConnectionId, names::NodeName, names::Label, names::RepoPath, names::RefName,
        names::CommitSha, names::MachineName, names::RepositoryId, names::ForgeContext, state::IntakeState, state::RunState, state::JobState,
        state::AttemptState, state::StepState, state::MachineState;
    blob: &[u8; 32], &[u8], &Vec<u8>
}

impl From<&str> for Value {
    fn from(v: &str) -> Self {
        Self::text(v)
    }
}

impl From<Option<&str>> for Value {
    fn from(v: Option<&str>) -> Self {
        v.map_or(Self::Text(None), Into::into)
    }
}

/// The parameters of a statement: `args![id, epoch, name]`.
macro_rules! args {
    ($($value:expr),* $(,)?) => { &[$($crate::store::engine::tx::Value::from($value)),*] };
}
pub(in crate::store) use args;

fn for_postgres(sql: Cow<'static, str>) -> Cow<'static, str> {
    if sql.contains("/*pg") {
        // Only these comments are closed in our statements, so the second replacement hits no other.
        Cow::Owned(sql.replace("/*pg", "").replace("*/", ""))
    } else {
        sql
    }
}

macro_rules! bound {
    ($sql:expr, $args:expr) => {{
        // Statements are constants of this module's files, completed at most by `transition_sql` and
        // `list` with quoted states and placeholders of our own; values travel as parameters only.
        let mut query = sqlx::query(AssertSqlSafe($sql));
        for value in $args {
            query = match value {
                Value::Int(v) => query.bind(*v),
                Value::Text(v) => query.bind(v.clone()),
                Value::Blob(v) => query.bind(v.clone()),
            };
        }
        query
    }};
}

impl Tx {
    fn failed(&self) -> impl FnOnce(sqlx::Error) -> StoreError + use<> {
        let what = self.what;
        move |source| StoreError::from_sqlx(what, source)
    }

    #[cfg(test)]
    async fn note_plan(&mut self, sql: &str) {
        match &mut self.link {
            Link::Writer(c) => super::plans::note(c, self.what, sql).await,
            Link::Reader(c) => super::plans::note(c, self.what, sql).await,
            Link::Single(c) => super::plans::note(c, self.what, sql).await,
            Link::Postgres(_) | Link::PostgresSingle(_) => {}
        }
    }

    /// Runs a statement; how many rows it changed.
    pub(in crate::store) async fn execute(
        &mut self,
        sql: impl Into<Cow<'static, str>>,
        args: &[Value],
    ) -> Result<u64, StoreError> {
        let (sql, failed) = (sql.into(), self.failed());
        #[cfg(test)]
        self.note_plan(&sql).await;
        match &mut self.link {
            Link::Writer(c) => bound!(sql, args).execute(c).await.map(|r| r.rows_affected()),
            Link::Reader(c) => bound!(sql, args).execute(&mut **c).await.map(|r| r.rows_affected()),
            Link::Single(c) => bound!(sql, args).execute(&mut **c).await.map(|r| r.rows_affected()),
            Link::Postgres(c) => bound!(for_postgres(sql), args)
                .execute(&mut **c)
                .await
                .map(|r| r.rows_affected()),
            Link::PostgresSingle(c) => bound!(for_postgres(sql), args)
                .execute(&mut **c)
                .await
                .map(|r| r.rows_affected()),
        }
        .map_err(failed)
    }

    /// All rows of a statement.
    pub(in crate::store) async fn rows(
        &mut self,
        sql: impl Into<Cow<'static, str>>,
        args: &[Value],
    ) -> Result<Vec<Row>, StoreError> {
        let (sql, failed, what) = (sql.into(), self.failed(), self.what);
        #[cfg(test)]
        self.note_plan(&sql).await;
        let sqlite = |rows: Vec<SqliteRow>| rows.into_iter().map(Cells::Sqlite).collect::<Vec<_>>();
        let postgres = |rows: Vec<PgRow>| rows.into_iter().map(Cells::Postgres).collect();
        let cells = match &mut self.link {
            Link::Writer(c) => bound!(sql, args).fetch_all(c).await.map(sqlite),
            Link::Reader(c) => bound!(sql, args).fetch_all(&mut **c).await.map(sqlite),
            Link::Single(c) => bound!(sql, args).fetch_all(&mut **c).await.map(sqlite),
            Link::Postgres(c) => bound!(for_postgres(sql), args).fetch_all(&mut **c).await.map(postgres),
            Link::PostgresSingle(c) => bound!(for_postgres(sql), args).fetch_all(&mut **c).await.map(postgres),
        };
        let rows = cells.map_err(failed)?.into_iter();
        Ok(rows.map(|cells| Row { what, cells }).collect())
    }

    /// The only row of a statement, if there is one.
    pub(in crate::store) async fn row(
        &mut self,
        sql: impl Into<Cow<'static, str>>,
        args: &[Value],
    ) -> Result<Option<Row>, StoreError> {
        Ok(self.rows(sql, args).await?.into_iter().next())
    }

    /// Whether no other transaction changes anything meanwhile, so that locks are waited for by nobody.
    pub(in crate::store) fn is_only_writer(&self) -> bool {
        matches!(self.link, Link::Writer(_))
    }

    /// Until the end of the transaction nobody else is in the same critical section. SQLite has one
    /// writer anyway.
    pub(in crate::store) async fn exclusive(&mut self, section: i64) -> Result<(), StoreError> {
        if matches!(self.link, Link::Postgres(_)) {
            self.rows("SELECT CAST(pg_advisory_xact_lock($1) AS TEXT)", args![section])
                .await?;
        }
        Ok(())
    }
}

/// Puts `count` placeholders, numbered from `first`, in place of `{list}`.
pub(in crate::store) fn list(sql: &str, first: usize, count: usize) -> String {
    let marks: Vec<String> = (first..first + count).map(|n| format!("${n}")).collect();
    sql.replace("{list}", &marks.join(", "))
}

/// A row of a result.
pub(in crate::store) struct Row {
    /// What is being done, for error messages.
    what: &'static str,
    cells: Cells,
}

enum Cells {
    Sqlite(SqliteRow),
    Postgres(PgRow),
}

macro_rules! get {
    ($self:ident, $column:ident, $type:ty) => {
        match &$self.cells {
            Cells::Sqlite(row) => row.try_get::<$type, _>($column),
            Cells::Postgres(row) => row.try_get::<$type, _>($column),
        }
        .map_err(|source| $self.unreadable($column, source))
    };
}

impl Row {
    /// A value of this row that is none of ours.
    pub(in crate::store) fn unreadable(&self, column: &str, reason: impl fmt::Display) -> StoreError {
        StoreError::Unreadable {
            what: self.what,
            column: column.to_owned(),
            reason: reason.to_string(),
        }
    }

    pub(in crate::store) fn int(&self, column: &str) -> Result<i64, StoreError> {
        get!(self, column, i64)
    }

    pub(in crate::store) fn opt_int(&self, column: &str) -> Result<Option<i64>, StoreError> {
        get!(self, column, Option<i64>)
    }

    pub(in crate::store) fn num(&self, column: &str) -> Result<u32, StoreError> {
        u32::try_from(self.int(column)?).map_err(|e| self.unreadable(column, e))
    }

    pub(in crate::store) fn flag(&self, column: &str) -> Result<bool, StoreError> {
        Ok(self.int(column)? != 0)
    }

    pub(in crate::store) fn text(&self, column: &str) -> Result<String, StoreError> {
        get!(self, column, String)
    }

    pub(in crate::store) fn opt_text(&self, column: &str) -> Result<Option<String>, StoreError> {
        get!(self, column, Option<String>)
    }

    pub(in crate::store) fn blob(&self, column: &str) -> Result<Vec<u8>, StoreError> {
        get!(self, column, Vec<u8>)
    }

    pub(in crate::store) fn opt_blob(&self, column: &str) -> Result<Option<Vec<u8>>, StoreError> {
        get!(self, column, Option<Vec<u8>>)
    }

    /// An id, a name or a state: parsed again, like everything that comes from outside.
    pub(in crate::store) fn parse<T: FromStr<Err: fmt::Display>>(&self, column: &str) -> Result<T, StoreError> {
        self.text(column)?.parse().map_err(|e| self.unreadable(column, e))
    }

    pub(in crate::store) fn opt_parse<T: FromStr<Err: fmt::Display>>(
        &self,
        column: &str,
    ) -> Result<Option<T>, StoreError> {
        self.opt_text(column)?
            .map(|text| text.parse().map_err(|e| self.unreadable(column, e)))
            .transpose()
    }

    pub(in crate::store) fn json<T: DeserializeOwned>(&self, column: &str) -> Result<T, StoreError> {
        serde_json::from_str(&self.text(column)?).map_err(|e| self.unreadable(column, e))
    }
}

/// A value as JSON text.
pub(in crate::store) fn to_json<T: serde::Serialize>(what: &'static str, value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|e| StoreError::Internal {
        what,
        reason: e.to_string(),
    })
}
