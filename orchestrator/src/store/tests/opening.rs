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
    assert_eq!(versions, (1..=db::newest()).collect::<Vec<_>>());
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
    lab.sql("UPDATE runs SET plan = '{\"version\": 9, \"templates\": {}}'")
        .await;
    let words = lab.store.job(claimed.job).await.unwrap_err().to_string();
    assert!(
        words.contains("has version 9, and this version of helios-ci knows up to 1"),
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
