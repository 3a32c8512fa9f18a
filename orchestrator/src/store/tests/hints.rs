//! Hints between two daemons with one database.

use futures::FutureExt as _;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    deadline::PROMPT,
    queue::{Hint, Hints as _, InProcess, Receiver},
};

/// One at a time: a test ends the connections of everybody who listens at the server.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// The daemon of another node, as far as it listens.
struct Other {
    receiver: Receiver,
    stop: CancellationToken,
    relay: tokio::task::JoinHandle<()>,
}

impl Other {
    /// Listens from now on.
    async fn listening(url: &str) -> Self {
        let store = Store::open(&Database::Postgres(Secret::new(url.to_owned())))
            .await
            .unwrap();
        let (hints, stop) = (Arc::new(InProcess::new()), CancellationToken::new());
        let receiver = hints.subscribe();
        let until = stop.clone();
        let relay = tokio::spawn(async move { store.relay_hints(hints, until).await });
        let mut other = Self { receiver, stop, relay };
        other.receives_everything().await;
        other
    }

    async fn receives(&mut self, wanted: Hint) {
        let received = tokio::time::timeout(PROMPT, self.receiver.wait_for(|hint| hint == wanted)).await;
        assert_eq!(received, Ok(true), "{wanted:?} was not hinted at");
    }

    /// As whoever begins to listen does.
    async fn receives_everything(&mut self) {
        for hint in [Hint::Delivery, Hint::Trigger, Hint::Job, Hint::Report, Hint::Kept] {
            self.receives(hint).await;
        }
    }

    async fn stops(self) {
        self.stop.cancel();
        tokio::time::timeout(PROMPT, self.relay).await.unwrap().unwrap();
    }
}

/// A daemon, and the address of its database; `None` without Postgres.
async fn daemon() -> Option<(Lab, String)> {
    let url = Lab::fresh_schema().await?;
    let store = Store::open(&Database::Postgres(Secret::new(url.clone())))
        .await
        .unwrap();
    Some((Lab::of(store).await, url))
}

async fn deliver(lab: &Lab, key: &str) {
    let delivery = NewDelivery {
        connection: "forge".parse().unwrap(),
        key: key.into(),
        event: "push".into(),
        body: key.into(),
        digest: hash(key.as_bytes()[0]),
        subject: Subject::default(),
    };
    lab.store.record_delivery(delivery).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_node_stores_wakes_the_others() {
    let _alone = ALONE.lock().await;
    let Some((lab, url)) = daemon().await else { return };
    let mut other = Other::listening(&url).await;
    deliver(&lab, "1").await;
    other.receives(Hint::Delivery).await;
    lab.store.create_trigger(&push(1, &sha(1)), "ann").await.unwrap();
    other.receives(Hint::Trigger).await;
    let claimed = lab.store.claim_trigger(&lab.node, MINUTE).await.unwrap().unwrap();
    assert_eq!(
        lab.store
            .release_triggers(&[(claimed.id, claimed.epoch)])
            .await
            .unwrap(),
        1
    );
    other.receives(Hint::Trigger).await;
    let claimed = lab.store.claim_trigger(&lab.node, MINUTE).await.unwrap().unwrap();
    let outcome = TriggerOutcome::Planned {
        commit: sha(1),
        title: String::new(),
        runs: vec![planned(&ci(&[("a", &[]), ("b", &[])]))],
    };
    let runs = lab.store.finish_trigger(claimed.id, claimed.epoch, outcome).await;
    let run = runs.unwrap().unwrap()[0];
    other.receives(Hint::Job).await;
    let (first, second) = (lab.claim().await.unwrap(), lab.claim().await.unwrap());
    lab.start(&first).await;
    other.receives(Hint::Report).await;
    lab.store.cancel_job(first.job, "ann", "").await.unwrap();
    other.receives(Hint::Cancel(first.attempt)).await;
    lab.store.cancel_run(run, "ann", "").await.unwrap();
    other.receives(Hint::Cancel(second.attempt)).await;
    lab.start(&second).await;
    let machine = MachineName::of(second.attempt);
    lab.store.keep_machine(&machine, "ann", MINUTE).await.unwrap();
    lab.end(&second, JobResult::Failure).await;
    other.receives(Hint::Kept).await;
    lab.store.release_machine(&machine).await.unwrap();
    other.receives(Hint::Kept).await;
    other.stops().await;
}

/// A hint that whoever begins to listen is not given, so that it came from the database.
async fn is_hinted_by_the_database(lab: &Lab, other: &mut Other) {
    lab.run(&ci(ONE)).await;
    let claimed = lab.claim().await.unwrap();
    lab.store.cancel_job(claimed.job, "ann", "").await.unwrap();
    other.receives(Hint::Cancel(claimed.attempt)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_whose_connection_ends_listens_again() {
    let _alone = ALONE.lock().await;
    let Some((lab, url)) = daemon().await else { return };
    let mut other = Other::listening(&url).await;
    is_hinted_by_the_database(&lab, &mut other).await;
    // Forget what was hinted at so far.
    while other.receiver.next().now_or_never().flatten().is_some() {}
    let ended = lab
        .number(
            "SELECT COUNT(CASE WHEN pg_terminate_backend(pid) THEN 1 END) AS n FROM pg_stat_activity
             WHERE query LIKE 'LISTEN%'",
        )
        .await;
    assert!(ended >= 1, "somebody listened");
    // What is stored meanwhile is found: whoever listens again takes it that everything changed.
    deliver(&lab, "2").await;
    other.receives_everything().await;
    is_hinted_by_the_database(&lab, &mut other).await;
    other.stops().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_stored_while_nobody_listened_is_hinted_at_afterwards() {
    let _alone = ALONE.lock().await;
    let Some((lab, url)) = daemon().await else { return };
    Other::listening(&url).await.stops().await;
    deliver(&lab, "1").await;
    let mut other = Other::listening(&url).await;
    // Everything was hinted at; the delivery is there to be claimed.
    assert!(
        lab.store
            .claim_delivery(&"node-b".parse().unwrap(), MINUTE)
            .await
            .unwrap()
            .is_some()
    );
    is_hinted_by_the_database(&lab, &mut other).await;
    other.stops().await;
}

#[tokio::test]
async fn on_sqlite_nobody_else_hints() {
    let lab = Lab::sqlite().await;
    let relay = lab
        .store
        .relay_hints(Arc::new(InProcess::new()), CancellationToken::new());
    tokio::time::timeout(PROMPT, relay).await.unwrap();
}
