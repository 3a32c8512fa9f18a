//! How SQLite goes about the statements of the store, for tests: each is explained when it is run first for its purpose in
//! this process.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use sqlx::{AssertSqlSafe, Row as _, SqliteConnection};

/// By what is being done and the statement: the steps, in SQLite's words.
type Plans = BTreeMap<(&'static str, String), Vec<String>>;

static SEEN: Mutex<Plans> = Mutex::new(BTreeMap::new());

/// All statements so far, with their plans.
pub(in crate::store) fn seen() -> Plans {
    SEEN.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Notes the plan of a statement that is about to run.
pub(super) async fn note(connection: &mut SqliteConnection, what: &'static str, sql: &str) {
    let verbs = ["SELECT", "WITH", "INSERT", "UPDATE", "DELETE"];
    let key = (what, sql.to_owned());
    let known = || SEEN.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&key);
    if !verbs.iter().any(|verb| sql.starts_with(verb)) || known() {
        return;
    }
    let explain = AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}"));
    // What cannot be explained cannot be run either, which says so itself.
    let Ok(rows) = sqlx::query(explain).fetch_all(connection).await else {
        return;
    };
    let steps = rows.iter().filter_map(|row| row.try_get("detail").ok()).collect();
    let mut seen = SEEN.lock().unwrap_or_else(PoisonError::into_inner);
    seen.insert(key, steps);
}
