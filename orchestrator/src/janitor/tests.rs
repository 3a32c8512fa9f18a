use std::{fs, path::Path};

use super::*;
use crate::{
    logs::{Channel, DEFAULT_CAP, LogWriter},
    model::{ids::RunId, state::JobResult},
    secret::Secret,
    store::tests::{AGE_ATTEMPTS, AGE_RUNS, Lab, ONE, ci},
};

const KEEP: Retention = Retention {
    logs_days: 90,
    runs_days: 365,
    deliveries_days: 14,
};

/// A node with its folder, on the store of a lab.
fn janitor(lab: &Lab, folder: &Path) -> Janitor {
    Janitor {
        store: lab.store.clone(),
        logs: LogStore::new(folder),
        node: lab.node.clone(),
        retention: KEEP,
        unsealable: HashSet::new(),
    }
}

async fn write(janitor: &Janitor, attempt: AttemptId, masks: &[&str]) -> LogWriter {
    let masks = masks.iter().map(|mask| Secret::new(*mask)).collect();
    let mut log = janitor
        .logs
        .open_writer(attempt, masks, DEFAULT_CAP, None)
        .await
        .unwrap();
    log.output(1, 0, Channel::Stdout, 0, b"one line\n").unwrap();
    log.sync().await.unwrap();
    log
}

/// A run whose only job ran on the lab's node and left a sealed log there.
async fn ran(lab: &Lab, janitor: &Janitor) -> (RunId, AttemptId) {
    let run = lab.run(&ci(ONE)).await;
    let claimed = lab.claim().await.unwrap();
    lab.start(&claimed).await;
    write(janitor, claimed.attempt, &[]).await.seal().await.unwrap();
    lab.end(&claimed, JobResult::Success).await;
    lab.gone(&claimed).await;
    (run, claimed.attempt)
}

#[tokio::test]
async fn each_node_removes_its_own_files_and_no_others() {
    let folder = tempfile::tempdir().unwrap();
    let (here, there) = (folder.path().join("here"), folder.path().join("there"));
    let lab = Lab::sqlite().await;
    let other = lab.node("node-b").await;
    let (mine, theirs) = (janitor(&lab, &here), janitor(&other, &there));
    let (_, my_log) = ran(&lab, &mine).await;
    let (_, their_log) = ran(&other, &theirs).await;
    let removed = async |log: AttemptId| lab.store.attempt(log).await.unwrap().unwrap().log_removed;
    mine.remove_expired().await.unwrap();
    assert!(mine.logs.exists(my_log).await && !removed(my_log).await, "not yet");
    lab.sql(AGE_ATTEMPTS).await;
    mine.remove_expired().await.unwrap();
    assert!(!mine.logs.exists(my_log).await && removed(my_log).await);
    assert!(
        theirs.logs.exists(their_log).await && !removed(their_log).await,
        "the other node's log is the other node's"
    );
    theirs.remove_expired().await.unwrap();
    assert!(!theirs.logs.exists(their_log).await && removed(their_log).await);
}

#[tokio::test]
async fn the_files_of_a_forgotten_run_are_removed_by_their_node_whenever_it_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let lab = Lab::sqlite().await;
    let other = lab.node("node-b").await;
    let (mine, theirs) = (
        janitor(&lab, &folder.path().join("here")),
        janitor(&other, &folder.path().join("there")),
    );
    let (run, log) = ran(&other, &theirs).await;
    lab.sql(AGE_RUNS).await;
    mine.remove_expired().await.unwrap();
    assert!(lab.store.run(run).await.unwrap().is_none());
    assert!(theirs.logs.exists(log).await);
    theirs.remove_expired().await.unwrap();
    assert!(!theirs.logs.exists(log).await);
    assert_eq!(lab.store.removals(&other.node, None).await.unwrap(), []);
}

#[tokio::test]
async fn a_file_that_cannot_be_removed_stays_marked_and_keeps_none_of_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let lab = Lab::sqlite().await;
    let mine = janitor(&lab, folder.path());
    let (_, first) = ran(&lab, &mine).await;
    let (_, second) = ran(&lab, &mine).await;
    lab.sql(AGE_ATTEMPTS).await;
    // Whoever writes a log cannot lose it.
    fs::remove_file(folder.path().join(format!("logs/{first}/sealed"))).unwrap();
    let writer = write(&mine, first, &[]).await;
    mine.remove_expired().await.unwrap();
    assert!(mine.logs.exists(first).await && !mine.logs.exists(second).await);
    drop(writer);
    mine.remove_expired().await.unwrap();
    assert!(!mine.logs.exists(first).await);
}

#[tokio::test]
async fn a_log_that_was_left_open_is_sealed_by_its_node_and_keeps_what_was_masked() {
    let folder = tempfile::tempdir().unwrap();
    let lab = Lab::sqlite().await;
    let other = lab.node("node-b").await;
    let mut mine = janitor(&lab, &folder.path().join("here"));
    let mut theirs = janitor(&other, &folder.path().join("there"));
    lab.run(&ci(ONE)).await;
    let claimed = lab.claim().await.unwrap();
    let log = claimed.attempt;
    // Its secrets were in the checkpoint, which goes with the attempt.
    let mut writer = write(&mine, log, &["hunter2!"]).await;
    writer
        .output(2, 0, Channel::Stdout, 0, b"the word is hunter2!\n")
        .unwrap();
    writer.sync().await.unwrap();
    mine.seal_left().await.unwrap();
    assert!(mine.logs.summary(log).await.unwrap().is_none(), "it lives");
    lab.fail_infra(&claimed, "the node fell silent").await;
    theirs.seal_left().await.unwrap();
    mine.seal_left().await.unwrap();
    assert!(mine.logs.summary(log).await.unwrap().is_none(), "its writer has it");
    let logs = mine.logs.clone();
    let reader = tokio::spawn(async move {
        let mut text = Vec::new();
        let mut pages = Box::pin(logs.follow(log, crate::logs::Position::START));
        while let Some(page) = futures::StreamExt::next(&mut pages).await {
            text.extend(page.unwrap().records.iter().flat_map(|record| record.data.to_vec()));
        }
        String::from_utf8(text).unwrap()
    });
    drop(writer);
    mine.seal_left().await.unwrap();
    assert!(mine.logs.summary(log).await.unwrap().is_some());
    let text = tokio::time::timeout(crate::deadline::PROMPT, reader).await;
    let text = text.expect("its viewers get their end").unwrap();
    assert_eq!(
        text,
        "one line\nthe word is ***\nThe log was interrupted here; its end may be missing.\n"
    );
    assert_eq!(lab.store.unsealed_logs(&lab.node, None).await.unwrap(), []);
}

#[tokio::test]
async fn an_attempt_without_a_log_is_asked_for_once_and_a_damaged_one_again() {
    let folder = tempfile::tempdir().unwrap();
    let lab = Lab::sqlite().await;
    let mut mine = janitor(&lab, folder.path());
    lab.run(&ci(ONE)).await;
    lab.play(JobResult::Success).await;
    mine.seal_left().await.unwrap();
    assert_eq!(lab.store.unsealed_logs(&lab.node, None).await.unwrap(), []);
    let (_, damaged) = ran(&lab, &mine).await;
    let path = folder.path().join(format!("logs/{damaged}"));
    fs::rename(path.join("sealed"), path.join("records")).unwrap();
    fs::write(path.join("meta.json"), "{}").unwrap();
    mine.seal_left().await.unwrap();
    mine.seal_left().await.unwrap();
    assert_eq!(lab.store.unsealed_logs(&lab.node, None).await.unwrap(), [damaged]);
    assert!(mine.unsealable.contains(&damaged));
}
