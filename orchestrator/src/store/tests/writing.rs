//! The writer of SQLite: batches, failures inside them, a full disk, a foreign lock.

use super::*;

async fn insert(store: &Store, subject: &'static str, fail: bool) -> Result<(), StoreError> {
    store
        .write("write for a test", Commit::Synced, move |tx| {
            Box::pin(async move {
                tx.execute(
                    "INSERT INTO audit (at_ms, who, action, subject, evidence, request_id)
                     VALUES (0, '', '', $1, '', '')",
                    engine::tx::args![subject],
                )
                .await?;
                if fail {
                    return Err(StoreError::Internal {
                        what: "write for a test",
                        reason: "it was to fail".into(),
                    });
                }
                Ok(())
            })
        })
        .await
}

const ROWS: &str = "SELECT COUNT(*) AS n FROM audit";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_operation_takes_no_other_with_it() {
    let lab = Lab::sqlite().await;
    let mut tasks = Vec::new();
    for n in 0..300 {
        let store = lab.store.clone();
        tasks.push(tokio::spawn(async move {
            (n % 3 == 0, insert(&store, "x", n % 3 == 0).await)
        }));
    }
    for task in tasks {
        let (fail, result) = task.await.unwrap();
        assert_eq!(result.is_err(), fail, "{result:?}");
    }
    assert_eq!(lab.number(ROWS).await, 200);
}

#[tokio::test]
async fn work_goes_on_when_its_caller_goes_away() {
    let lab = Lab::sqlite().await;
    {
        let mut abandoned = Box::pin(insert(&lab.store, "x", false));
        let waker = futures::task::noop_waker();
        let mut context = std::task::Context::from_waker(&waker);
        assert!(abandoned.as_mut().poll(&mut context).is_pending());
    }
    insert(&lab.store, "y", false).await.unwrap();
    assert_eq!(lab.number(ROWS).await, 2);
}

#[tokio::test]
async fn a_full_disk_is_named_and_loses_nothing() {
    let lab = Lab::sqlite().await;
    insert(&lab.store, "before", false).await.unwrap();
    let large = vec![1_u8; 4 << 20];
    let pages = lab.number("SELECT page_count AS n FROM pragma_page_count()").await;
    let limit = async |pages: i64| {
        lab.store
            .write("limit the database for a test", Commit::Synced, move |tx| {
                Box::pin(async move {
                    tx.execute(format!("PRAGMA max_page_count = {pages}"), &[])
                        .await
                        .map(drop)
                })
            })
            .await
            .unwrap();
    };
    limit(pages + 8).await;
    let delivery = |key: &str| NewDelivery {
        connection: "forge".parse().unwrap(),
        key: key.into(),
        event: "push".into(),
        body: large.clone(),
        digest: hash(1),
        subject: Subject::default(),
    };
    let error = lab.store.record_delivery(delivery("1")).await.unwrap_err();
    assert!(matches!(error, StoreError::Full { .. }), "{error:?}");
    assert_eq!(error.to_string().lines().count(), 1);
    assert_eq!(lab.number(ROWS).await, 1, "reading goes on");
    limit(1 << 30).await;
    let stored = lab.store.record_delivery(delivery("1")).await.unwrap();
    assert!(
        matches!(stored, RecordOutcome::New(_)),
        "and so does writing once there is room"
    );
}

#[tokio::test]
async fn closing_finishes_what_is_queued() {
    let lab = Lab::sqlite().await;
    let writes: Vec<_> = (0..50).map(|_| insert(&lab.store, "x", false)).collect();
    let (results, ()) = tokio::join!(futures::future::join_all(writes), lab.store.close());
    assert!(
        results
            .iter()
            .all(|r| matches!(r, Ok(()) | Err(StoreError::Closed { .. })))
    );
    let late = insert(&lab.store, "late", false).await;
    assert!(matches!(late, Err(StoreError::Closed { .. })));
}

/// How SQLite syncs the commit of the operation that asks: 2 is FULL, 1 NORMAL.
async fn synchronous(store: &Store, commit: Commit) -> i64 {
    let level = store.write("write for a test", commit, move |tx| {
        Box::pin(async move {
            let row = tx.row("PRAGMA synchronous", &[]).await?;
            row.map_or(Ok(-1), |row| row.int("synchronous"))
        })
    });
    level.await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_what_may_wait_for_the_next_sync_is_not_synced() {
    let lab = Lab::sqlite().await;
    for (commit, level) in [
        (Commit::WithNext, 1),
        (Commit::Synced, 2),
        (Commit::WithNext, 1),
        (Commit::SyncedSingle, 2),
        (Commit::Synced, 2),
    ] {
        assert_eq!(synchronous(&lab.store, commit).await, level, "{commit:?}");
    }
}

/// Appends a number to those of its submitter; how SQLite syncs the commit, as [`synchronous`].
async fn append(store: Store, commit: Commit, submitter: i64, number: i64) -> Result<i64, StoreError> {
    let append = store.write("append for a test", commit, move |tx| {
        Box::pin(async move {
            tx.execute(
                "INSERT INTO appended (submitter, number) VALUES ($1, $2)",
                engine::tx::args![submitter, number],
            )
            .await?;
            if fails(commit, number) {
                return Err(StoreError::Internal {
                    what: "append for a test",
                    reason: "it was to fail".into(),
                });
            }
            let row = tx.row("PRAGMA synchronous", &[]).await?;
            row.map_or(Ok(-1), |row| row.int("synchronous"))
        })
    });
    append.await
}

/// What is a transaction by itself has nothing that would undo it.
fn fails(commit: Commit, number: i64) -> bool {
    commit != Commit::SyncedSingle && number % 7 == 0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mixed_batch_keeps_each_submitters_order_and_syncs_what_cannot_wait() {
    const EACH: i64 = 24;
    let commit_of = |number: i64| match number / 2 % 3 {
        0 => Commit::WithNext,
        1 => Commit::Synced,
        _ => Commit::SyncedSingle,
    };
    let lab = Lab::sqlite().await;
    lab.sql("CREATE TABLE appended (place INTEGER PRIMARY KEY, submitter INTEGER, number INTEGER)")
        .await;
    let mut tasks = Vec::new();
    for submitter in 0..12 {
        let store = lab.store.clone();
        // All of them are in the queue before the first is answered.
        tasks.push(tokio::spawn(futures::future::join_all((0..EACH).map(move |number| {
            append(store.clone(), commit_of(number), submitter, number)
        }))));
    }
    for task in tasks {
        for (number, level) in (0..).zip(task.await.unwrap()) {
            let commit = commit_of(number);
            assert_eq!(level.is_err(), fails(commit, number), "{number}: {level:?}");
            if let Ok(level) = level {
                assert!(commit == Commit::WithNext || level == 2, "{commit:?} at level {level}");
            }
        }
    }
    let kept: Vec<i64> = (0..EACH).filter(|number| !fails(commit_of(*number), *number)).collect();
    let mut tx = lab.store.read("look for a test").await.unwrap();
    for submitter in 0..12 {
        let rows = tx
            .rows(
                "SELECT number FROM appended WHERE submitter = $1 ORDER BY place",
                engine::tx::args![submitter],
            )
            .await
            .unwrap();
        let numbers: Vec<i64> = rows.iter().map(|row| row.int("number").unwrap()).collect();
        assert_eq!(numbers, kept, "of submitter {submitter}");
    }
}
