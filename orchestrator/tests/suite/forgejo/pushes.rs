//! Pushes: the first, a hundred at once, one that only removes a branch, one of a tag alone.

use super::{
    conversation,
    server::Forgejo,
    setup::{ENGINE, SMALL, Setup, gated},
};

conversation!(first_push);
/// A push becomes statuses that begin as pending and end as a success, and lead to pages.
async fn first_push(forge: impl Forgejo) {
    let setup = Setup::new(forge).await;
    // Of a job that has ended before its forge heard of it, only the end is told.
    let gate = setup.ci.dir.path().join("gate");
    let sha = setup.push(ENGINE, "main", &gated(&gate));
    let contexts = ["helios-ci", "helios-ci / ci / job"];
    for context in contexts {
        setup
            .until(&format!("{context} is pending"), async || {
                let status = setup.status(ENGINE, &sha, context).await?;
                (status.state == "pending").then_some(())
            })
            .await;
    }
    std::fs::write(&gate, "").expect("the gate");
    setup.wait(ENGINE, &sha, "success").await;
    setup.wait_combined(ENGINE, &sha).await;
    for context in contexts {
        let mut states = setup.states(ENGINE, &sha, context).await;
        states.dedup();
        assert_eq!(states, ["pending", "success"], "{context}");
        let status = setup.status(ENGINE, &sha, context).await.expect("a status");
        let page = status
            .target_url
            .strip_prefix(&setup.ci.url())
            .expect("a page of the daemon");
        let (answer, _) = crate::support::hold::http(setup.ci.port(), page, setup.ci.token());
        assert_eq!(answer, 200, "{status:?}");
        assert!(!status.description.is_empty(), "{status:?}");
    }
    assert_eq!(setup.runs(&sha), 1);
    let job = setup.ci.wait_job(&sha, "job", "success");
    let log = setup.ci.log(job["id"].as_str().expect("an id"));
    assert!(log.contains("hello"), "{log}");
    setup.ci.wait_clean();
}

conversation!(deleted_branch);
/// A branch that is removed runs nothing, and what comes after it runs.
async fn deleted_branch(forge: impl Forgejo) {
    let setup = Setup::new(forge).await;
    let main = setup.push(ENGINE, "main", SMALL);
    setup.wait(ENGINE, &main, "success").await;
    let side = setup.push(ENGINE, "side", SMALL);
    setup.wait(ENGINE, &side, "success").await;
    let url = setup.forge.clone_url(ENGINE);
    setup.forge.git().push(&url, &[("refs/heads/side", None)]);
    let deleted = setup.ci.until("the deletion is read", || {
        let heard = setup.deliveries("delete").pop()?;
        (heard["state"] != "received").then_some(heard)
    });
    assert_eq!(deleted["state"], "ignored", "{deleted}");
    let next = setup.push(ENGINE, "main", SMALL);
    setup.wait(ENGINE, &next, "success").await;
    assert_eq!(setup.all_runs().len(), 3);
}

conversation!(tag_alone);
/// In a repository that has a tag and no branch the forge keeps a status and answers that it failed: the end is told
/// once, and nobody else waits for it.
async fn tag_alone(forge: impl Forgejo) {
    let setup = Setup::new(forge).await;
    let tagged = "ada/tagged";
    setup.add_repository(tagged).await;
    let sha = setup.commit(tagged, "main", SMALL);
    let url = setup.forge.clone_url(tagged);
    setup.forge.git().push(&url, &[("refs/tags/v1", Some(&sha))]);
    let other = setup.push(ENGINE, "main", SMALL);
    setup.wait(tagged, &sha, "success").await;
    setup.wait(ENGINE, &other, "success").await;
    let later = setup.push(ENGINE, "main", SMALL);
    setup.wait(ENGINE, &later, "success").await;
    setup.wait_reported();
    for context in ["helios-ci", "helios-ci / ci / job"] {
        let states = setup.states(tagged, &sha, context).await;
        let ends = states.iter().filter(|state| *state == "success").count();
        assert_eq!(ends, 1, "{context}: {states:?}");
    }
    assert_eq!(setup.runs(&sha), 1);
}

/// So many branches come in one push.
const BRANCHES: usize = 100;

conversation!(a_hundred_branches);
/// Each of them is one run, and gets its statuses.
async fn a_hundred_branches(forge: impl Forgejo) {
    let setup = Setup::new(forge).await;
    let main = setup.push(ENGINE, "main", SMALL);
    setup.wait(ENGINE, &main, "success").await;
    let branches: Vec<(String, String)> = (0..BRANCHES)
        .map(|number| {
            let commit = setup.commit(ENGINE, "main", SMALL);
            (format!("refs/heads/branch-{number}"), commit)
        })
        .collect();
    let refs: Vec<(&str, Option<&str>)> = branches
        .iter()
        .map(|(name, sha)| (name.as_str(), Some(sha.as_str())))
        .collect();
    setup.forge.git().push(&setup.forge.clone_url(ENGINE), &refs);
    for (_, sha) in &branches {
        setup.wait(ENGINE, sha, "success").await;
        let states = setup.states(ENGINE, sha, "helios-ci").await;
        assert_eq!(
            states.iter().filter(|state| *state == "success").count(),
            1,
            "{states:?}"
        );
    }
    let mut runs = setup.all_runs();
    runs.sort();
    let mut pushed: Vec<String> = branches.into_iter().map(|(_, sha)| sha).chain([main]).collect();
    pushed.sort();
    assert_eq!(runs, pushed);
}
