//! Comparing a repository's refs: what is written, and when it is tried again.

use super::{
    deliveries::{ignored, pushed, read, tip},
    *,
};

contract!(
    a_comparison_writes_only_what_changed,
    a_repository_that_cannot_be_compared_waits_longer_each_time,
);

/// From now on the database refuses to change the row of branch `a`.
async fn protect(lab: &Lab) {
    match lab.store.inner.pool {
        Pool::Sqlite { .. } => {
            lab.sql(
                "CREATE TRIGGER untouched BEFORE UPDATE ON tips WHEN OLD.ref_name = 'refs/heads/a'
                 BEGIN SELECT RAISE(ABORT, 'rewritten'); END",
            )
            .await;
        }
        Pool::Postgres { .. } => {
            lab.sql(
                "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
                 'BEGIN RAISE EXCEPTION USING MESSAGE = TG_NAME; END'",
            )
            .await;
            lab.sql(
                "CREATE TRIGGER untouched BEFORE UPDATE ON tips FOR EACH ROW
                 WHEN (OLD.ref_name = 'refs/heads/a') EXECUTE FUNCTION refuse()",
            )
            .await;
        }
    }
}

async fn a_comparison_writes_only_what_changed(lab: Lab) {
    let repository = push(1, &sha(1)).repository;
    let compare = async |tips: Vec<Tip>| lab.store.compared(&repository, tips).await;
    compare(vec![tip("a", 1), tip("b", 1), tip("c", 1)]).await.unwrap();
    protect(&lab).await;
    compare(vec![tip("a", 1), tip("b", 2), tip("d", 3)]).await.unwrap();
    let mut tx = lab.store.read("look at tips").await.unwrap();
    let rows = tx
        .rows("SELECT ref_name, commit_sha, known FROM tips ORDER BY ref_name", &[])
        .await
        .unwrap();
    let found: Vec<_> = rows
        .iter()
        .map(|row| {
            let commit: CommitSha = row.parse("commit_sha").unwrap();
            (row.text("ref_name").unwrap(), commit, row.int("known").unwrap())
        })
        .collect();
    let expected = [("a", 1, 1), ("b", 2, 0), ("d", 3, 0)];
    let expected = expected.map(|(name, commit, known)| (format!("refs/heads/{name}"), sha(commit), known));
    assert_eq!(found, expected, "the gone ref is gone, a moved or new one is not known");
    drop(tx);
    let refused = compare(vec![tip("a", 2)]).await;
    assert!(refused.is_err(), "a change of the protected row would be noticed");
}

/// Makes the last comparison older.
async fn age(lab: &Lab, by: Duration) {
    let aged = lab.store.write("age a comparison", Commit::Synced, move |tx| {
        Box::pin(async move {
            let sql = "UPDATE comparisons SET tried_ms = tried_ms - $1";
            tx.execute(sql, engine::tx::args![ms(by)]).await.map(drop)
        })
    });
    aged.await.unwrap();
}

async fn a_repository_that_cannot_be_compared_waits_longer_each_time(lab: Lab) {
    let repository = push(1, &sha(1)).repository;
    let due = async || lab.store.comparison_due(&repository).await.unwrap();
    let fails = async || lab.store.not_compared(&repository, "too many refs").await.unwrap();
    assert!(due().await, "it was never tried");
    for minutes in [10, 20, 40, 80, 160, 320, 360, 360] {
        fails().await;
        age(&lab, MINUTE * minutes / 2).await;
        assert!(!due().await, "half of {minutes} minutes");
        age(&lab, MINUTE * minutes / 2).await;
        assert!(due().await, "{minutes} minutes");
    }
    lab.store.compared(&repository, vec![tip("a", 1)]).await.unwrap();
    assert!(!due().await, "nothing is held");
    read(&lab, &pushed("1", "a", 2), ignored(Retry::Automatic)).await;
    assert!(due().await, "a push is held");
    fails().await;
    assert!(!due().await, "also for a held push");
    age(&lab, MINUTE * 10).await;
    assert!(due().await, "a success begins the count again");
}
