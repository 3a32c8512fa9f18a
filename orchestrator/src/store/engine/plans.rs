//! How SQLite goes about the statements of a store, for tests: of a database that is watched, each is explained when it is
//! run first for its purpose.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use sqlx::{AssertSqlSafe, Row as _, SqliteConnection};

/// By what is being done and the statement: the steps, in SQLite's words.
type Plans = BTreeMap<(&'static str, String), Vec<String>>;

/// By the database's file.
static WATCHED: Mutex<BTreeMap<PathBuf, Plans>> = Mutex::new(BTreeMap::new());

fn watched() -> MutexGuard<'static, BTreeMap<PathBuf, Plans>> {
    WATCHED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Notes the statements of this database from now on.
pub(in crate::store) fn watch(database: &Path) {
    watched().insert(database.canonicalize().unwrap(), Plans::new());
}

/// Its statements so far, with their plans; it is not watched any more.
pub(in crate::store) fn seen(database: &Path) -> Plans {
    watched().remove(&database.canonicalize().unwrap()).unwrap_or_default()
}

async fn file(connection: &mut SqliteConnection) -> Option<PathBuf> {
    let main = sqlx::query("PRAGMA database_list").fetch_one(connection).await.ok()?;
    Path::new(&main.try_get::<String, _>("file").ok()?).canonicalize().ok()
}

/// Notes the plan of a statement that is about to run.
pub(super) async fn note(connection: &mut SqliteConnection, what: &'static str, sql: &str) {
    let verbs = ["SELECT", "WITH", "INSERT", "UPDATE", "DELETE"];
    if watched().is_empty() || !verbs.iter().any(|verb| sql.starts_with(verb)) {
        return;
    }
    let Some(file) = file(connection).await else { return };
    let key = (what, sql.to_owned());
    if watched().get(&file).is_none_or(|plans| plans.contains_key(&key)) {
        return;
    }
    let explain = AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}"));
    // What cannot be explained cannot be run either, which says so itself.
    let Ok(rows) = sqlx::query(explain).fetch_all(connection).await else {
        return;
    };
    let steps = rows.iter().filter_map(|row| row.try_get("detail").ok()).collect();
    if let Some(plans) = watched().get_mut(&file) {
        plans.insert(key, steps);
    }
}
