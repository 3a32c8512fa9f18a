//! The schema: what migrations make of it on filled databases, on both databases alike, and that statements use it all.

use std::{collections::BTreeMap, path::Path};

use sqlx::{ConnectOptions as _, Connection as _, Executor as _};

use super::*;

/// Rows of every table whose rows hang on others, as the first two versions of the schema had them.
const OLD_ROWS: &str = "
    INSERT INTO triggers (id, connection, repository_id, body, by_whom, state, created_ms, due_ms)
        VALUES ('01hzzzzzzzzzzzzzzzzzzzzzz1', 'forge', 1, '{}', 'ann', 'planned', 1, 1);
    INSERT INTO runs (id, trigger_id, connection, repository_id, repository_path, installation, ref_name, commit_sha, title, actor,
            event, path, name, source, diagnostics, created_ms, attempt)
        VALUES ('01hzzzzzzzzzzzzzzzzzzzzzz2', '01hzzzzzzzzzzzzzzzzzzzzzz1', 'forge', 1, 'o/r', 9, 'refs/heads/main',
            'abababababababababababababababababababab', 't', 'ann', 'push', 'ci.yml', 'ci', '', '[]', 1, 1);
    INSERT INTO run_attempts (run_id, number, state, by_whom, created_ms, ended_ms)
        VALUES ('01hzzzzzzzzzzzzzzzzzzzzzz2', 1, 'success', 'ann', 1, 9);
    INSERT INTO jobs (id, run_id, run_attempt, place, job_key, name, check_name, generation, needs, label, cpus,
            memory_mib, class, connection, repository_id, state, created_ms, ended_ms)
        VALUES ('01hzzzzzzzzzzzzzzzzzzzzzz3', '01hzzzzzzzzzzzzzzzzzzzzzz2', 1, 0, 'build', 'build', 'c', 1, '[]',
            'debian', 2, 2048, 'small', 'forge', 1, 'success', 1, 9);
    INSERT INTO turn (class, connection, repository_id, since_ms, queued) VALUES ('small', 'forge', 1, 1, 0);
    INSERT INTO reports (id, connection, repository_id, repository_path, installation, commit_sha, name, generation,
            state, title, summary, version, since_version, due_ms)
        VALUES ('01hzzzzzzzzzzzzzzzzzzzzzz5', 'forge', 1, 'o/r', NULL, 'abababababababababababababababababababab', 'helios-ci',
            1, 'success', 't', '', 1, 1, 1);
    INSERT INTO outputs (job_id, name, value) VALUES ('01hzzzzzzzzzzzzzzzzzzzzzz3', 'a', 'b');
    INSERT INTO attempts (id, job_id, number, state, epoch, node, instance, created_ms, ended_ms)
        VALUES ('01hzzzzzzzzzzzzzzzzzzzzzz4', '01hzzzzzzzzzzzzzzzzzzzzzz3', 1, 'ended', 1, 'node-a', 'i', 1, 9);
    INSERT INTO steps (attempt_id, idx, name, state, allowed_failure)
        VALUES ('01hzzzzzzzzzzzzzzzzzzzzzz4', 0, 'true', 'success', 0);";

fn old_schema(database: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations").join(database);
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    format!(
        "{}{}
         CREATE TABLE schema_versions (version BIGINT PRIMARY KEY, applied_ms BIGINT NOT NULL);
         INSERT INTO schema_versions (version, applied_ms) VALUES (1, 0), (2, 0);{OLD_ROWS}",
        read("0001_initial.sql"),
        read("0002_keep.sql"),
    )
}

/// What a migration of a filled database must keep: every row, what hangs on it, and that it goes with it.
async fn everything_was_kept(store: Store) {
    let lab = Lab::of(store).await;
    let attempt: AttemptId = "01hzzzzzzzzzzzzzzzzzzzzzz4".parse().unwrap();
    let row = lab.store.attempt(attempt).await.unwrap().unwrap();
    assert_eq!((row.job_key.as_str(), row.size.memory_mib), ("build", 2048));
    assert_eq!(
        (row.repository.id.as_str(), row.repository.context.as_str()),
        ("1", "9")
    );
    let owed = lab.claim_reports(9, MINUTE).await.remove(0);
    let repository = owed.report.repository;
    assert_eq!((repository.id.as_str(), repository.context.is_empty()), ("1", true));
    let turns = "SELECT COUNT(*) AS n FROM turn WHERE repository_id = '1'";
    assert_eq!(lab.number(turns).await, 1);
    assert_eq!(lab.store.steps(attempt).await.unwrap().len(), 1);
    assert_eq!(lab.number("SELECT COUNT(*) AS n FROM outputs").await, 1);
    assert_eq!(
        lab.store.unsealed_logs(&lab.node, None).await.unwrap(),
        [attempt],
        "nobody has looked yet"
    );
    // New rows go on behind the old ones, one key twice in a run attempt is refused, and what hangs on a run goes.
    lab.run(&ci(ONE)).await;
    let newest = "SELECT MAX(seq) - MIN(seq) AS n FROM jobs";
    assert!(lab.number(newest).await > 0);
    let double = "INSERT INTO jobs (id, run_id, run_attempt, place, job_key, name, check_name, generation, needs, label,
            cpus, memory_mib, class, connection, repository_id, state, created_ms)
        VALUES ('x', '01hzzzzzzzzzzzzzzzzzzzzzz2', 1, 0, 'build', 'b', 'c', 1, '[]', 'debian', 2, 2048, 'small', 'forge', 1,
            'waiting', 1)";
    let refused = lab
        .store
        .write("break a rule", Commit::Synced, move |tx| {
            Box::pin(async move { tx.execute(double, &[]).await.map(drop) })
        })
        .await;
    assert!(refused.is_err(), "a job's key is unique in its run attempt");
    assert!(lab.store.forget_run(row.run).await.unwrap());
    for table in ["attempts", "steps", "outputs"] {
        let sql = format!("SELECT COUNT(*) AS n FROM {table}");
        let mut tx = lab.store.read("count for a test").await.unwrap();
        assert_eq!(tx.row(sql, &[]).await.unwrap().unwrap().int("n").unwrap(), 0, "{table}");
    }
}

#[tokio::test]
async fn a_filled_sqlite_database_of_old_is_brought_up_to_date() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("helios-ci.db");
    let options = sqlx::sqlite::SqliteConnectOptions::new()
        .filename(&path)
        .create_if_missing(true);
    let mut old = options.connect().await.unwrap();
    let sql = sqlx::AssertSqlSafe(old_schema("sqlite"));
    old.execute(sqlx::raw_sql(sql)).await.unwrap();
    old.close().await.unwrap();
    everything_was_kept(Store::open(&Database::Sqlite(path)).await.unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_filled_postgres_database_of_old_is_brought_up_to_date() {
    let Some(url) = Lab::fresh_schema().await else { return };
    let mut old = sqlx::PgConnection::connect(&url).await.unwrap();
    let sql = sqlx::AssertSqlSafe(old_schema("postgres"));
    old.execute(sqlx::raw_sql(sql)).await.unwrap();
    old.close().await.unwrap();
    everything_was_kept(Store::open(&Database::Postgres(Secret::new(url))).await.unwrap()).await;
}

/// Every table with its columns, but for the record of migrations itself.
async fn tables(lab: &Lab, sql: &'static str) -> BTreeMap<String, Vec<String>> {
    let mut tx = lab.store.read("read the schema").await.unwrap();
    let mut tables: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for row in tx.rows(sql, &[]).await.unwrap() {
        let (table, column) = (row.text("tbl").unwrap(), row.text("col").unwrap());
        tables.entry(table).or_default().push(column);
    }
    tables.remove("schema_versions");
    for columns in tables.values_mut() {
        columns.sort();
    }
    tables
}

const SQLITE: &str = "SELECT m.name AS tbl, c.name AS col FROM sqlite_master m JOIN pragma_table_info(m.name) c
     WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite%'";
const POSTGRES: &str = "SELECT CAST(table_name AS TEXT) AS tbl, CAST(column_name AS TEXT) AS col
     FROM information_schema.columns WHERE table_schema = current_schema()";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_databases_have_the_same_tables_and_columns() {
    let Some(postgres) = Lab::postgres().await else { return };
    let sqlite = tables(&Lab::sqlite().await, SQLITE).await;
    assert!(sqlite.len() >= 15, "{sqlite:?}");
    assert_eq!(tables(&postgres, POSTGRES).await, sqlite);
}

/// The words of a piece of SQL.
fn words(sql: &str) -> impl Iterator<Item = &str> {
    sql.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
}

/// The text of every literal of the store's own code. Quotes are found as they stand; no literal there holds one.
fn literals() -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                if !path.ends_with("tests") {
                    folders.push(path);
                }
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
            let code: Vec<&str> = code
                .lines()
                .filter(|line| !line.trim_start().starts_with("//"))
                .collect();
            found.extend(code.join("\n").split('"').skip(1).step_by(2).map(str::to_owned));
        }
    }
    found
}

/// What nothing reads or writes is a promise that nobody keeps: it comes with the statements that use it.
#[tokio::test]
async fn a_statement_names_every_table_and_every_column() {
    let literals = literals();
    let tables = tables(&Lab::sqlite().await, SQLITE).await;
    let is_statement = |sql: &&String| {
        let first = words(sql).find(|word| !word.is_empty()).unwrap_or_default();
        ["SELECT", "INSERT", "UPDATE", "DELETE", "WITH"].contains(&first)
    };
    let statements: Vec<&String> = literals.iter().filter(is_statement).collect();
    assert!(
        statements.len() > 100,
        "only {} statements were found",
        statements.len()
    );
    // A list of columns stands by itself where several statements share it.
    let lists: Vec<&String> = literals
        .iter()
        .filter(|sql| !is_statement(sql) && sql.matches(", ").count() > 4)
        .collect();
    let mut unused = Vec::new();
    for (table, columns) in &tables {
        let about: Vec<&&String> = statements
            .iter()
            .filter(|sql| words(sql).any(|word| word == table))
            .collect();
        if about.is_empty() {
            unused.push(table.clone());
        }
        // The order of arrival is the database's to fill in, whether somebody asks for it or not.
        for column in columns.iter().filter(|column| *column != "seq") {
            let named = |sql: &&&String| words(sql).any(|word| word == column);
            if !about.iter().copied().any(|sql| named(&sql)) && !lists.iter().any(|sql| named(&sql)) {
                unused.push(format!("{table}.{column}"));
            }
        }
    }
    assert_eq!(unused, [""; 0], "no statement of src/store names these");
}
