//! How SQLite goes about the statements of the store, for tests: each is explained when it is run first in this process.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use sqlx::{AssertSqlSafe, Row as _, SqliteConnection};

/// A statement's way.
#[derive(Debug, Clone)]
pub(in crate::store) struct QueryPlan {
    /// What was being done.
    pub(in crate::store) what: &'static str,
    /// The steps, in SQLite's words.
    pub(in crate::store) steps: Vec<String>,
}

static SEEN: Mutex<BTreeMap<String, QueryPlan>> = Mutex::new(BTreeMap::new());

/// All statements so far, with their plans.
pub(in crate::store) fn seen() -> BTreeMap<String, QueryPlan> {
    SEEN.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Notes the plan of a statement that is about to run.
pub(super) async fn note(connection: &mut SqliteConnection, what: &'static str, sql: &str) {
    let verbs = ["SELECT", "WITH", "INSERT", "UPDATE", "DELETE"];
    if !verbs.iter().any(|verb| sql.starts_with(verb)) || seen().contains_key(sql) {
        return;
    }
    let explain = AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}"));
    // What cannot be explained cannot be run either, which says so itself.
    let Ok(rows) = sqlx::query(explain).fetch_all(connection).await else {
        return;
    };
    let steps = rows.iter().filter_map(|row| row.try_get("detail").ok()).collect();
    let mut seen = SEEN.lock().unwrap_or_else(PoisonError::into_inner);
    seen.insert(sql.to_owned(), QueryPlan { what, steps });
}
