//! Opening: what is migrated, what is refused, and what is never made anew.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use super::*;

async fn open(path: &Path) -> Result<Store, StoreError> {
    Store::open(&Database::Sqlite(path.to_owned())).await
}

/// A database that some work was done in: what a migration meets. Later migrations are tested on it
/// by opening it again.
async fn filled(path: &Path) -> (Lab, RunId, ClaimedJob) {
    let lab = Lab::of(open(path).await.unwrap()).await;
    let run = lab.run(&ci(&[("a", &[]), ("b", &["a"])])).await;
    lab.play(JobResult::Failure).await;
    lab.store.rerun(run, Rerun::All, "bob").await.unwrap();
    let claimed = lab.claim().await.unwrap();
    lab.store
        .checkpoint(claimed.attempt, claimed.epoch, b"sealed")
        .await
        .unwrap();
    (lab, run, claimed)
}

#[tokio::test]
async fn everything_is_there_after_closing_and_opening() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("helios-ci.db");
    let (lab, run, claimed) = filled(&path).await;
    let before = format!("{:?}", lab.store.run(run).await.unwrap());
    lab.store.close().await;
    assert!(matches!(lab.store.ping().await, Err(StoreError::Closed { .. })));
    let again = open(&path).await.unwrap();
    assert_eq!(format!("{:?}", again.run(run).await.unwrap()), before);
    assert_eq!(
        again.load_checkpoint(claimed.attempt).await.unwrap().unwrap(),
        b"sealed"
    );
}

#[tokio::test]
async fn the_migrations_are_not_repeated_on_a_filled_database() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("helios-ci.db");
    let (lab, ..) = filled(&path).await;
    lab.store.close().await;
    let store = open(&path).await.unwrap();
    let mut tx = store.read("read the schema's version").await.unwrap();
    let rows = tx
        .rows("SELECT version FROM schema_versions ORDER BY version", &[])
        .await
        .unwrap();
    let versions: Vec<i64> = rows.iter().map(|row| row.int("version").unwrap()).collect();
    // Without a gap: what came into one later would be skipped by databases that are newer already.
    assert_eq!(versions, (1..=engine::db::newest()).collect::<Vec<_>>());
}

/// Deliveries of a version 2 database keep their words, in their order, and what failed may come again.
#[tokio::test]
async fn deliveries_of_an_older_version_are_kept() {
    use sqlx::{Connection as _, Executor as _};
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("helios-ci.db");
    let address = format!("sqlite://{}?mode=rwc", path.display());
    let mut old = sqlx::SqliteConnection::connect(&address).await.unwrap();
    // As that version wrote it: ids were numbers, and an installation stood beside the repository.
    let trigger = format!(
        r#"{{"repository":{{"connection":"forge","id":1,"path":"owner/repo-1"}},"event":{{"name":"push",
            "ref_name":"refs/heads/main","commit":"{}","before":null}},"installation":9,"actor":"ann","title":"Fix"}}"#,
        sha(1)
    );
    for sql in [
        include_str!("../../../migrations/sqlite/0001_initial.sql").to_owned(),
        include_str!("../../../migrations/sqlite/0002_keep.sql").to_owned(),
        "CREATE TABLE schema_versions (version BIGINT PRIMARY KEY, applied_ms BIGINT NOT NULL);
         INSERT INTO schema_versions VALUES (1, 0), (2, 0);
         INSERT INTO deliveries (id, connection, delivery_key, event, body, digest, state, reason, received_ms) VALUES
             ('01k9zk6x0f5t3b8w2q7m4d1c01', 'forge', '1', 'push', x'', zeroblob(32), 'planned', NULL, 1),
             ('01k9zk6x0f5t3b8w2q7m4d1c02', 'forge', '2', 'push', x'', zeroblob(32), 'failed', 'no', 2),
             ('01k9zk6x0f5t3b8w2q7m4d1c03', 'forge', '3', 'ping', x'', zeroblob(32), 'ignored', 'a ping', 3),
             ('01k9zk6x0f5t3b8w2q7m4d1c04', 'forge', '4', 'push', x'', zeroblob(32), 'ignored',
              'the repository a/b is not in the list of connection forge', 4);"
            .to_owned(),
        format!(
            "INSERT INTO triggers (id, connection, repository_id, body, by_whom, state, created_ms, due_ms)
             VALUES ('01k9zk6x0f5t3b8w2q7m4d1c05', 'forge', 1, '{trigger}', 'ann', 'received', 1, 1)"
        ),
        format!(
            "INSERT INTO turn (class, connection, repository_id, since_ms, queued) VALUES ('c', 'forge', 42, 1, 0);
             INSERT INTO reports (id, connection, repository_id, repository_path, installation, commit_sha, name,
                 generation, state, title, summary, version, since_version, due_ms)
             VALUES ('01k9zk6x0f5t3b8w2q7m4d1c06', 'forge', 42, 'owner/repo', 9, '{}', 'helios-ci', 1, 'success', 't', 's',
                 1, 1, 1)",
            sha(2)
        ),
    ] {
        old.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(sql))).await.unwrap();
    }
    old.close().await.unwrap();
    let store = open(&path).await.unwrap();
    let rows = store.deliveries(&DeliveryFilter::default()).await.unwrap();
    let rows: Vec<(&str, bool)> = rows.iter().map(|row| (row.key.as_str(), row.retryable)).collect();
    assert_eq!(rows, [("4", true), ("3", false), ("2", true), ("1", false)]);
    let lab = Lab::of(store).await;
    let refs = "SELECT COUNT(*) AS n FROM triggers WHERE ref_name = 'refs/heads/main' AND claimed_sha IS NOT NULL";
    assert_eq!(lab.number(refs).await, 1);
    let claimed = lab.store.claim_trigger(&lab.node, MINUTE).await.unwrap().unwrap();
    let repository = &claimed.trigger.repository;
    assert_eq!((repository.id.as_str(), repository.context.as_str()), ("1", "9"));
    let converted = "SELECT COUNT(*) AS n FROM reports r JOIN turn t ON t.repository_id = r.repository_id
        WHERE r.repository_id = '42' AND r.forge_context = '9'";
    assert_eq!(lab.number(converted).await, 1);
}

#[tokio::test]
async fn only_its_owner_can_read_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("helios-ci.db");
    fs::write(&path, b"").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let (_lab, ..) = filled(&path).await;
    for entry in fs::read_dir(folder.path()).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{:?}", entry.file_name());
    }
}

#[tokio::test]
async fn a_newer_schema_is_refused_in_words() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("helios-ci.db");
    let (lab, ..) = filled(&path).await;
    lab.sql("INSERT INTO schema_versions (version, applied_ms) VALUES (99, 0)")
        .await;
    lab.store.close().await;
    let error = open(&path).await.unwrap_err();
    assert!(matches!(error, StoreError::Newer { found: 99, .. }));
    assert!(error.to_string().contains("run the newer version"), "{error}");
}

#[tokio::test]
async fn a_damaged_file_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("helios-ci.db");
    let (lab, ..) = filled(&path).await;
    lab.store.close().await;
    let whole = fs::read(&path).unwrap();
    let mut inner = whole.clone();
    for byte in &mut inner[4096..32768] {
        *byte ^= 0x5a;
    }
    let mut header = whole;
    header[..16].copy_from_slice(b"not a database!!");
    for damaged in [inner, header] {
        fs::write(&path, &damaged).unwrap();
        let error = open(&path).await.unwrap_err();
        assert!(matches!(error, StoreError::Corrupt { .. }), "{error:?}");
        assert!(error.to_string().contains("restore a backup"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), damaged, "left as it was");
    }
}

/// What a command costs must not grow with the history that it does not ask for.
#[tokio::test]
async fn a_command_beside_the_daemon_does_not_read_all_of_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("helios-ci.db");
    let (lab, run, _) = filled(&path).await;
    lab.store
        .sql(
            "INSERT INTO audit (at_ms, who, action, subject, evidence, request_id)
             VALUES (1, '', '', '', zeroblob(1000000), '')",
        )
        .await;
    lab.store.close().await;
    let mut file = fs::read(&path).unwrap();
    // The last pages are of that row: a chain of pages that begin with the number of the next.
    let end = file.len();
    for byte in &mut file[end - 100_000..] {
        *byte = 0xff;
    }
    fs::write(&path, &file).unwrap();
    let error = open(&path).await.unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error:?}");
    let store = Store::open_beside_daemon(&Database::Sqlite(path)).await.unwrap();
    assert!(store.run(run).await.unwrap().is_some());
}

#[tokio::test]
async fn a_place_that_cannot_hold_it_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("no/such/folder.db");
    for path in [missing.as_path(), folder.path()] {
        let error = open(path).await.unwrap_err();
        assert!(error.to_string().contains(&path.display().to_string()), "{error}");
    }
}

#[tokio::test]
async fn an_unreadable_row_and_a_mistake_of_ours_are_not_called_damage() {
    let lab = Lab::sqlite().await;
    let run = lab.run(&ci(&[("a", &[]), ("b", &["a"])])).await;
    let claimed = lab.claim().await.unwrap();
    lab.sql("UPDATE jobs SET label = 'Not A Label' WHERE job_key = 'b'")
        .await;
    let error = lab.store.run(run).await.unwrap_err();
    assert!(matches!(&error, StoreError::Unreadable { column, .. } if column == "label"));
    let words = error.to_string();
    assert!(
        words.starts_with("cannot read a run: a row of the database has a value in `label`")
            && words.contains("Only what needs this row is affected")
            && !words.contains("damaged"),
        "{words}"
    );
    assert!(lab.store.job(claimed.job).await.unwrap().is_some(), "the others go on");
    lab.sql("UPDATE jobs SET label = 'debian', state = 'waiting'").await;
    let end = AttemptEnd::Infra { cause: "lost".into() };
    let error = lab.store.end_attempt(claimed.attempt, claimed.epoch, end, TRIES).await;
    let error = error.unwrap_err();
    assert!(matches!(error, StoreError::Internal { .. }), "{error:?}");
    let words = error.to_string();
    assert!(
        words.contains("a mistake in helios-ci, not in the database") && !words.contains("restore"),
        "{words}"
    );
}

#[tokio::test]
async fn a_plan_of_a_newer_version_is_named_by_its_version() {
    let lab = Lab::sqlite().await;
    lab.run(&ci(ONE)).await;
    let claimed = lab.claim().await.unwrap();
    lab.sql("UPDATE job_plans SET plan = '{\"version\": 9, \"templates\": {}}'")
        .await;
    let words = lab.store.job(claimed.job).await.unwrap_err().to_string();
    assert!(
        words.contains("has version 9, and this version of helios-ci knows up to 2"),
        "{words}"
    );
}

/// What both databases began with must not drift apart: the two files differ in three words only.
#[test]
fn the_schemas_of_both_databases_agree() {
    let sqlite = include_str!("../../../migrations/sqlite/0001_initial.sql")
        .replace(
            "INTEGER PRIMARY KEY AUTOINCREMENT",
            "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY",
        )
        .replace("BLOB", "BYTEA");
    let postgres = include_str!("../../../migrations/postgres/0001_initial.sql");
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(words(&sqlite), words(postgres));
}
