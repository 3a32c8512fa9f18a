//! What comes again: whatever was not done may, whatever was done may not. And what was missed.

use super::*;
use crate::model::{ids::DeliveryId, state::IntakeState};

contract!(
    what_led_to_nothing_may_come_again_and_what_was_done_may_not,
    a_branch_that_was_deleted_and_pushed_again_is_new,
    an_old_push_delivered_again_is_new_for_the_tip_alone,
    another_word_of_the_same_commit_moves_nothing,
    by_ourselves_only_what_the_connection_kept_from_running_comes_again,
    a_refusal_of_the_credentials_is_no_try,
    what_waits_for_a_right_is_due_when_it_is_delivered_again,
    what_waits_for_its_next_try_goes_on_waiting_when_it_is_delivered_again,
    a_right_to_one_repository_wakes_what_waits_for_it_alone,
    a_key_alone_makes_no_duplicate,
    a_commit_says_that_its_push_waits_until_it_does_not,
    a_tip_that_nobody_planned_was_missed,
    held_pushes_are_those_of_the_tip,
    deliveries_are_listed_with_what_came_of_them,
);

/// A push of a branch of repository 1, by the commit's byte; 0 deletes it.
pub(super) fn pushed(key: &str, branch: &str, commit: u8) -> NewDelivery {
    let commit: CommitSha = sha(commit);
    let body = format!("{branch} {commit}");
    let mut digest = [0; 32];
    digest[..branch.len()].copy_from_slice(branch.as_bytes());
    digest[31] = u8::from_str_radix(&commit.as_str()[..2], 16).unwrap();
    NewDelivery {
        connection: "forge".parse().unwrap(),
        key: key.into(),
        event: "push".into(),
        body: body.into(),
        digest,
        subject: Subject {
            repository_id: Some(1.into()),
            repository: Some("owner/repo-1".parse().unwrap()),
            ref_name: Some(format!("refs/heads/{branch}").parse().unwrap()),
            commit: Some(commit),
        },
    }
}

async fn record(lab: &Lab, new: &NewDelivery) -> RecordOutcome {
    lab.store.record_delivery(new.clone()).await.unwrap()
}

/// Stored as new, and read with this outcome.
pub(super) async fn read(lab: &Lab, new: &NewDelivery, outcome: DeliveryOutcome) -> DeliveryId {
    let RecordOutcome::New(id) = record(lab, new).await else {
        panic!("not new: {new:?}");
    };
    finish(lab, outcome).await;
    id
}

async fn finish(lab: &Lab, outcome: DeliveryOutcome) {
    let claimed = lab.store.claim_delivery(&lab.node, MINUTE).await.unwrap().unwrap();
    let ended = lab.store.finish_delivery(claimed.id, claimed.epoch, outcome).await;
    assert!(ended.unwrap());
}

fn trigger_of(new: &NewDelivery) -> DeliveryOutcome {
    let mut trigger = push(1, new.subject.commit.as_ref().unwrap());
    let Event::Ref(on) = &mut trigger.event;
    on.ref_name = new.subject.ref_name.clone().unwrap();
    DeliveryOutcome::Planned(vec![trigger])
}

pub(super) fn ignored(retry: Retry) -> DeliveryOutcome {
    DeliveryOutcome::Ignored {
        reason: "not listed".into(),
        retry,
    }
}

/// Ends the trigger that is due; whether it must be the tip.
async fn plan(lab: &Lab, outcome: impl FnOnce(CommitSha) -> TriggerOutcome) -> bool {
    let claimed = lab.store.claim_trigger(&lab.node, MINUTE).await.unwrap().unwrap();
    let outcome = outcome(claimed.trigger.event.commit().unwrap().clone());
    let ended = lab.store.finish_trigger(claimed.id, claimed.epoch, outcome).await;
    ended.unwrap().unwrap();
    claimed.tip_only
}

fn runs(commit: CommitSha) -> TriggerOutcome {
    TriggerOutcome::Planned {
        title: String::new(),
        commit,
        runs: vec![planned(&ci(ONE))],
    }
}

fn failed(retry: Retry) -> impl FnOnce(CommitSha) -> TriggerOutcome {
    move |_| TriggerOutcome::Failed {
        reason: "the forge was away".into(),
        commit: None,
        retry,
    }
}

fn not_planned(commit: Option<u8>, retry: Retry) -> impl FnOnce(CommitSha) -> TriggerOutcome {
    move |_| TriggerOutcome::Ignored {
        reason: "no workflow wants it".into(),
        commit: commit.map(sha),
        retry,
    }
}

async fn what_led_to_nothing_may_come_again_and_what_was_done_may_not(lab: Lab) {
    use Retry::{Automatic, Never, OnRequest};
    // How the first one ended: the delivery itself, or its trigger.
    let mut ends: Vec<(bool, Retry)> = Vec::new();
    for retry in [Never, OnRequest, Automatic] {
        ends.extend([(true, retry), (false, retry)]);
    }
    for (case, (at_the_door, retry)) in (1_u8..).zip(ends) {
        for same_key in [true, false] {
            let branch = format!("b{case}{same_key}");
            let first = pushed(&format!("{branch}-1"), &branch, case);
            let again = NewDelivery {
                key: if same_key {
                    first.key.clone()
                } else {
                    format!("{branch}-2")
                },
                ..first.clone()
            };
            let what = format!("at the door: {at_the_door}, {retry:?}, same key: {same_key}");
            let id = if at_the_door {
                read(&lab, &first, ignored(retry)).await
            } else {
                let id = read(&lab, &first, trigger_of(&first)).await;
                // Under way, it is done for whoever comes meanwhile.
                assert_eq!(record(&lab, &again).await, RecordOutcome::Duplicate(id), "{what}");
                plan(&lab, failed(retry)).await;
                id
            };
            if retry == Never {
                assert_eq!(record(&lab, &again).await, RecordOutcome::Duplicate(id), "{what}");
                continue;
            }
            let second = read(&lab, &again, trigger_of(&again)).await;
            assert_ne!(second, id, "what has ended is never reopened");
            assert_eq!(record(&lab, &first).await, RecordOutcome::Duplicate(second), "{what}");
            assert!(!plan(&lab, runs).await, "{what}: nothing was planned for it before");
            for same in [&first, &again] {
                assert!(
                    matches!(record(&lab, same).await, RecordOutcome::Duplicate(_)),
                    "{what}"
                );
            }
            let row = lab.store.delivery(id).await.unwrap().unwrap();
            assert!(row.state.is_terminal(), "{what}");
        }
    }
}

async fn a_branch_that_was_deleted_and_pushed_again_is_new(lab: Lab) {
    // GitHub tells of a deletion with a push as well, Forgejo with this event alone.
    for (branch, deletion) in [("x", "push"), ("y", "delete")] {
        // Every body is the same as the one of the round before.
        for round in 0..3 {
            let new = pushed(&format!("p{round}{branch}"), branch, 1);
            read(&lab, &new, trigger_of(&new)).await;
            assert_eq!(plan(&lab, runs).await, round > 0, "{branch}, round {round}");
            assert!(
                matches!(
                    record(&lab, &pushed("again", branch, 1)).await,
                    RecordOutcome::Duplicate(_)
                ),
                "{branch}, round {round}: the same push delivered again is none"
            );
            let mut deleted = pushed(&format!("d{round}{branch}"), branch, 0);
            deletion.clone_into(&mut deleted.event);
            read(&lab, &deleted, ignored(Retry::Never)).await;
        }
    }
    assert_eq!(lab.number("SELECT COUNT(*) AS n FROM runs").await, 6);
}

async fn an_old_push_delivered_again_is_new_for_the_tip_alone(lab: Lab) {
    let (first, second) = (pushed("1", "x", 1), pushed("2", "x", 2));
    for new in [&first, &second] {
        read(&lab, new, trigger_of(new)).await;
        plan(&lab, runs).await;
    }
    // By its own key it is known; under another it may be a branch that was set back, which the tip says.
    assert!(matches!(record(&lab, &first).await, RecordOutcome::Duplicate(_)));
    let replayed = pushed("1-replayed", "x", 1);
    read(&lab, &replayed, trigger_of(&replayed)).await;
    assert!(plan(&lab, not_planned(None, Retry::Never)).await, "the tip decides");
    // What led to nothing does not open the door for the others.
    for key in ["1-again", "2-again"] {
        for commit in [1, 2] {
            let new = pushed(key, "x", commit);
            assert!(
                matches!(record(&lab, &new).await, RecordOutcome::Duplicate(_)),
                "{key} {commit}"
            );
        }
    }
    assert_eq!(lab.number("SELECT COUNT(*) AS n FROM runs").await, 2);
}

async fn another_word_of_the_same_commit_moves_nothing(lab: Lab) {
    let first = pushed("1", "x", 1);
    let other_words = NewDelivery {
        key: "2".into(),
        digest: [9; 32],
        ..first.clone()
    };
    for new in [&first, &other_words] {
        read(&lab, new, trigger_of(new)).await;
        plan(&lab, runs).await;
    }
    // A redelivery of Forgejo's: the same body under a new id.
    let again = NewDelivery {
        key: "3".into(),
        ..first.clone()
    };
    assert!(matches!(record(&lab, &again).await, RecordOutcome::Duplicate(_)));
    // Whoever set the branch elsewhere meanwhile did move it.
    let moved = pushed("4", "x", 2);
    read(&lab, &moved, trigger_of(&moved)).await;
    plan(&lab, runs).await;
    assert!(matches!(record(&lab, &again).await, RecordOutcome::New(_)));
}

async fn by_ourselves_only_what_the_connection_kept_from_running_comes_again(lab: Lab) {
    let again = async |id| lab.store.deliver_again(id).await.unwrap();
    let asked = read(&lab, &pushed("1", "asked", 1), ignored(Retry::OnRequest)).await;
    assert_eq!(again(asked).await, None);
    assert_eq!(again(DeliveryId::new()).await, None);
    let mut id = read(&lab, &pushed("2", "listed", 1), ignored(Retry::Automatic)).await;
    let mut rows = 1;
    while let Some(next) = again(id).await {
        assert_eq!(again(id).await, None, "it is on its way already");
        finish(&lab, ignored(Retry::Automatic)).await;
        (id, rows) = (next, rows + 1);
        assert!(rows < 20, "for ever");
    }
    assert_eq!(rows, 5);
    // Who delivers it again may still.
    assert!(matches!(
        record(&lab, &pushed("2", "listed", 1)).await,
        RecordOutcome::New(_)
    ));
    finish(&lab, ignored(Retry::Automatic)).await;
    let held = read(&lab, &pushed("3", "moved", 1), ignored(Retry::Automatic)).await;
    read(&lab, &pushed("4", "moved", 2), ignored(Retry::Never)).await;
    assert_eq!(again(held).await, None, "another push followed");
}

async fn a_refusal_of_the_credentials_is_no_try(lab: Lab) {
    lab.store.create_trigger(&push(1, &sha(1)), "ann").await.unwrap();
    for refusals in 0..30 {
        let claimed = lab.store.claim_trigger(&lab.node, MINUTE).await.unwrap().unwrap();
        assert_eq!((claimed.tries, claimed.refusals), (1, refusals));
        let later = lab.store.retry_trigger(claimed.id, claimed.epoch, MINUTE, "401", true);
        assert!(later.await.unwrap());
        assert!(
            lab.store.claim_trigger(&lab.node, MINUTE).await.unwrap().is_none(),
            "it waits"
        );
        lab.store.connection_works(&"other".parse().unwrap()).await.unwrap();
        assert!(
            lab.store.claim_trigger(&lab.node, MINUTE).await.unwrap().is_none(),
            "for its own connection"
        );
        lab.store.connection_works(&"forge".parse().unwrap()).await.unwrap();
    }
}

/// Claims the trigger that is due, and puts it off for so long.
async fn put_off(lab: &Lab, for_connection: bool) {
    let claimed = lab.store.claim_trigger(&lab.node, MINUTE).await.unwrap().unwrap();
    let later = lab
        .store
        .retry_trigger(claimed.id, claimed.epoch, 10 * MINUTE, "no right", for_connection);
    assert!(later.await.unwrap());
}

async fn what_waits_for_a_right_is_due_when_it_is_delivered_again(lab: Lab) {
    for (case, same_key) in [(1, true), (2, false)] {
        let (first, again) = twice(case, same_key);
        let id = read(&lab, &first, trigger_of(&first)).await;
        assert_eq!(
            record(&lab, &again).await,
            RecordOutcome::Duplicate(id),
            "it waits for its turn alone"
        );
        put_off(&lab, true).await;
        assert!(
            lab.store.claim_trigger(&lab.node, MINUTE).await.unwrap().is_none(),
            "it waits"
        );
        assert_eq!(record(&lab, &again).await, RecordOutcome::Woken(id), "case {case}");
        assert!(!plan(&lab, runs).await, "case {case}");
        assert_eq!(
            record(&lab, &again).await,
            RecordOutcome::Duplicate(id),
            "case {case}: it was planned"
        );
    }
    assert_eq!(lab.number("SELECT COUNT(*) AS n FROM deliveries").await, 2);
    assert_eq!(lab.number("SELECT COUNT(*) AS n FROM runs").await, 2);
}

/// A delivery and its repetition.
fn twice(case: u8, same_key: bool) -> (NewDelivery, NewDelivery) {
    let first = pushed(&format!("{case}-1"), &format!("b{case}"), case);
    let key = if same_key {
        first.key.clone()
    } else {
        format!("{case}-2")
    };
    let again = NewDelivery { key, ..first.clone() };
    (first, again)
}

async fn what_waits_for_its_next_try_goes_on_waiting_when_it_is_delivered_again(lab: Lab) {
    for (case, same_key) in [(1, true), (2, false)] {
        let (first, again) = twice(case, same_key);
        let id = read(&lab, &first, trigger_of(&first)).await;
        // Also where it waited for a right before.
        if case == 2 {
            put_off(&lab, true).await;
            assert_eq!(record(&lab, &again).await, RecordOutcome::Woken(id));
        }
        put_off(&lab, false).await;
        for _ in 0..30 {
            assert_eq!(record(&lab, &again).await, RecordOutcome::Duplicate(id));
            assert!(lab.store.claim_trigger(&lab.node, MINUTE).await.unwrap().is_none());
        }
        lab.sql("UPDATE triggers SET state = 'failed'").await;
    }
    let most = lab.number("SELECT CAST(MAX(tries) AS BIGINT) AS n FROM triggers").await;
    assert_eq!(most, 1);
}

async fn a_right_to_one_repository_wakes_what_waits_for_it_alone(lab: Lab) {
    for (repository, for_connection) in [(1, true), (2, true), (3, false)] {
        lab.store
            .create_trigger(&push(repository, &sha(1)), "ann")
            .await
            .unwrap();
        put_off(&lab, for_connection).await;
    }
    for repository in [1, 3] {
        let works = push(repository, &sha(1)).repository;
        lab.store.repository_works(&works).await.unwrap();
    }
    let claim = async || lab.store.claim_trigger(&lab.node, MINUTE).await.unwrap();
    assert_eq!(claim().await.unwrap().trigger, push(1, &sha(1)));
    assert!(claim().await.is_none(), "the others go on waiting");
}

async fn a_key_alone_makes_no_duplicate(lab: Lab) {
    let first = pushed("1", "main", 1);
    let id = read(&lab, &first, trigger_of(&first)).await;
    assert!(!plan(&lab, runs).await);
    // A forge may write the same event otherwise when it delivers it again.
    assert_eq!(
        record(&lab, &pushed("1", "main", 2)).await,
        RecordOutcome::Duplicate(id)
    );
    // Nobody signs the key, so whoever holds one signed body may put any before it.
    let mut other = pushed("1", "other", 3);
    other.subject.repository_id = Some(2.into());
    assert!(matches!(record(&lab, &other).await, RecordOutcome::New(_)));
}

async fn a_commit_says_that_its_push_waits_until_it_does_not(lab: Lab) {
    let says = async |commit: u8| lab.says(commit, "helios-ci").await;
    let due = async || lab.store.connection_works(&"forge".parse().unwrap()).await.unwrap();
    // What waits for a forge that is away says nothing: it cannot.
    let new = pushed("1", "a", 1);
    read(&lab, &new, trigger_of(&new)).await;
    put_off(&lab, false).await;
    assert_eq!(says(1).await, None);
    due().await;
    put_off(&lab, true).await;
    assert_eq!(says(1).await.as_deref(), Some("queued: Waiting: no right"));
    due().await;
    plan(&lab, runs).await;
    assert_eq!(says(1).await.as_deref(), Some("queued: 1 job queued"));
    lab.play(JobResult::Success).await;
    // Another branch at a commit that is green: it is not, before that was tried.
    let other = pushed("2", "other", 1);
    read(&lab, &other, trigger_of(&other)).await;
    assert_eq!(says(1).await.as_deref(), Some("success: 1 job succeeded"));
    put_off(&lab, true).await;
    assert_eq!(says(1).await.as_deref(), Some("queued: Waiting: no right"));
    due().await;
    plan(&lab, not_planned(Some(1), Retry::OnRequest)).await;
    assert_eq!(says(1).await.as_deref(), Some("success: 1 job succeeded"));
    // Nothing comes of it, and it is given up.
    for (branch, commit) in [("ignored", 2), ("given-up", 3)] {
        let new = pushed(branch, branch, commit);
        read(&lab, &new, trigger_of(&new)).await;
        put_off(&lab, true).await;
        due().await;
        match commit {
            2 => plan(&lab, not_planned(None, Retry::OnRequest)).await,
            _ => {
                plan(&lab, |commit| TriggerOutcome::Failed {
                    reason: "no right for a day".into(),
                    commit: Some(commit),
                    retry: Retry::Automatic,
                })
                .await
            }
        };
    }
    assert_eq!(
        says(2).await.as_deref(),
        Some("skipped: Nothing to run: no workflow wants it")
    );
    assert_eq!(says(3).await.as_deref(), Some("error: no right for a day"));
    // A tag's push may name a tag object, which carries no checks.
    let mut tag = push(1, &sha(4));
    tag.event = Event::push("refs/tags/v1".parse().unwrap(), sha(4), None);
    lab.store.create_trigger(&tag, "ann").await.unwrap();
    put_off(&lab, true).await;
    assert_eq!(says(4).await, None);
}

pub(super) fn tip(branch: &str, commit: u8) -> Tip {
    Tip {
        ref_name: format!("refs/heads/{branch}").parse().unwrap(),
        commit: sha(commit),
        object: sha(commit),
    }
}

async fn missed(lab: &Lab) -> Vec<String> {
    let rows = lab.store.missed().await.unwrap();
    rows.iter().map(|row| row.ref_name.short().to_owned()).collect()
}

async fn a_tip_that_nobody_planned_was_missed(lab: Lab) {
    let repository = push(1, &sha(1)).repository;
    let compare = async |tips: Vec<Tip>| {
        lab.store.compared(&repository, tips).await.unwrap();
        missed(&lab).await
    };
    let known = pushed("1", "main", 1);
    read(&lab, &known, trigger_of(&known)).await;
    plan(&lab, runs).await;
    // At the first time what nobody spoke of is old, and what was pushed before can be compared.
    assert_eq!(compare(vec![tip("main", 2), tip("old", 9)]).await, ["main"]);
    assert_eq!(compare(vec![tip("main", 1), tip("old", 9)]).await, Vec::<String>::new());
    // From then on both what moves and what is new was missed.
    assert_eq!(
        compare(vec![tip("main", 3), tip("new", 1), tip("old", 8)]).await,
        ["main", "new", "old"]
    );
    assert_eq!(
        compare(vec![tip("main", 3), tip("old", 8)]).await,
        ["main", "old"],
        "what is gone is nobody's"
    );
    // A delivery that comes late, a trigger that failed, one that was looked at, and one that ran.
    let late = pushed("2", "main", 3);
    assert!(matches!(record(&lab, &late).await, RecordOutcome::New(_)));
    assert_eq!(missed(&lab).await, ["old"], "on its way");
    finish(&lab, trigger_of(&late)).await;
    assert_eq!(missed(&lab).await, ["old"], "on its way");
    plan(&lab, failed(Retry::OnRequest)).await;
    assert_eq!(missed(&lab).await, ["main", "old"]);
    read(&lab, &late, trigger_of(&late)).await;
    plan(&lab, not_planned(Some(3), Retry::OnRequest)).await;
    assert_eq!(missed(&lab).await, ["old"], "no workflow wants it");
    let mut asked = push(1, &sha(8));
    asked.event = Event::Ref(RefEvent {
        ref_name: "refs/heads/old".parse().unwrap(),
        cause: RefCause::Manual {
            commit: None,
            as_push: true,
            workflow: None,
        },
    });
    lab.store.create_trigger(&asked, "ann").await.unwrap();
    let claimed = lab.store.claim_trigger(&lab.node, MINUTE).await.unwrap().unwrap();
    let ended = lab.store.finish_trigger(claimed.id, claimed.epoch, runs(sha(8))).await;
    ended.unwrap().unwrap();
    assert_eq!(missed(&lab).await, Vec::<String>::new());
    // A comparison that fails changes nothing but says so.
    lab.store.not_compared(&repository, "the forge is away").await.unwrap();
    let row = lab.store.comparisons().await.unwrap().remove(0);
    assert_eq!(
        (row.reason.as_deref(), row.at_ms.is_some()),
        (Some("the forge is away"), true)
    );
    let known = lab.store.known_repositories(&"forge".parse().unwrap()).await.unwrap();
    assert_eq!(known, [repository], "with the forge's context of its newest run");
}

async fn held_pushes_are_those_of_the_tip(lab: Lab) {
    let repository = push(1, &sha(1)).repository;
    let held = async || {
        let held = lab.store.held_pushes(&repository).await.unwrap();
        held.iter()
            .map(|held| held.ref_name.short().to_owned())
            .collect::<Vec<_>>()
    };
    read(&lab, &pushed("1", "a", 1), ignored(Retry::Automatic)).await;
    read(&lab, &pushed("2", "b", 1), ignored(Retry::OnRequest)).await;
    let kept = pushed("3", "c", 1);
    read(&lab, &kept, trigger_of(&kept)).await;
    assert_eq!(held().await, ["a"]);
    plan(&lab, failed(Retry::Automatic)).await;
    assert_eq!(held().await, ["a", "c"]);
    read(&lab, &pushed("4", "a", 0), ignored(Retry::Never)).await;
    assert_eq!(held().await, ["c"], "the branch was deleted since");
    // A person ran it meanwhile.
    let DeliveryOutcome::Planned(mut asked) = trigger_of(&kept) else {
        panic!("a push");
    };
    lab.store.create_trigger(&asked.remove(0), "ann").await.unwrap();
    plan(&lab, runs).await;
    assert_eq!(held().await, Vec::<String>::new());
}

async fn deliveries_are_listed_with_what_came_of_them(lab: Lab) {
    let list = async |filter: DeliveryFilter| lab.store.deliveries(&filter).await.unwrap();
    let (first, second) = (pushed("1", "a", 1), pushed("2", "b", 2));
    let old = read(&lab, &first, trigger_of(&first)).await;
    plan(&lab, runs).await;
    read(&lab, &second, ignored(Retry::Automatic)).await;
    let all = list(DeliveryFilter::default()).await;
    let keys: Vec<&str> = all.iter().map(|row| row.key.as_str()).collect();
    assert_eq!(keys, ["2", "1"]);
    assert_eq!((all[0].retryable, all[1].retryable), (true, false));
    assert_eq!(
        (all[1].builds[0].runs, all[1].builds[0].state),
        (1, IntakeState::Planned)
    );
    assert_eq!(all[1].repository, first.subject.repository);
    for (filter, keys) in [
        (
            DeliveryFilter {
                state: Some(IntakeState::Planned),
                ..DeliveryFilter::default()
            },
            vec!["1"],
        ),
        (
            DeliveryFilter {
                repository: Some("OWNER/Repo-1".parse().unwrap()),
                limit: 1,
                ..DeliveryFilter::default()
            },
            vec!["2"],
        ),
        (
            DeliveryFilter {
                connection: Some("other".parse().unwrap()),
                ..DeliveryFilter::default()
            },
            vec![],
        ),
        (
            DeliveryFilter {
                before: Some(all[0].id),
                ..DeliveryFilter::default()
            },
            vec!["1"],
        ),
    ] {
        let found = list(filter.clone()).await;
        let found: Vec<&str> = found.iter().map(|row| row.key.as_str()).collect();
        assert_eq!(found, keys, "{filter:?}");
    }
    assert!(lab.store.delivery(old).await.unwrap().is_some());
}
