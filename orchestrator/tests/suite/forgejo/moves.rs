//! A repository that is no longer where it was when its job began.

use std::fs;

use super::{
    conversation,
    server::{BOT, Forgejo, OWNER},
    setup::{ENGINE, SMALL, Setup, gated},
};

conversation!(moved_repository);
/// The end of a job is reported where the repository is by then.
async fn moved_repository(forge: impl Forgejo) {
    let setup = Setup::new(forge).await;
    let gate = setup.ci.dir.path().join("gate");
    let sha = setup.push(ENGINE, "main", &gated(&gate));
    setup.ci.wait_job(&sha, "job", "active");
    setup.wait(ENGINE, &sha, "pending").await;
    setup.forge.rename_repository(ENGINE, "motor").await;
    fs::write(&gate, "").expect("the gate");
    setup.wait("ada/motor", &sha, "success").await;
    setup.wait_combined("ada/motor", &sha).await;
    assert_eq!(setup.runs(&sha), 1);
}

conversation!(renamed_owner);
/// The same when it is the owner who has another name.
async fn renamed_owner(forge: impl Forgejo) {
    let setup = Setup::new(forge).await;
    let gate = setup.ci.dir.path().join("gate");
    let sha = setup.push(ENGINE, "main", &gated(&gate));
    setup.ci.wait_job(&sha, "job", "active");
    setup.wait(ENGINE, &sha, "pending").await;
    setup.forge.rename_owner(OWNER, "lovelace").await;
    fs::write(&gate, "").expect("the gate");
    setup.wait("lovelace/engine", &sha, "success").await;
    setup.wait_combined("lovelace/engine", &sha).await;
    assert_eq!(setup.runs(&sha), 1);
}

conversation!(recreated_repository);
/// A repository under the path of one that was deleted gets no status of its predecessor's jobs, also where it has the
/// same commits.
async fn recreated_repository(forge: impl Forgejo) {
    let setup = Setup::new(forge).await;
    setup.add_repository("ada/other").await;
    let gate = setup.ci.dir.path().join("gate");
    let sha = setup.push(ENGINE, "main", &gated(&gate));
    setup.ci.wait_job(&sha, "job", "active");
    setup.wait_reported();
    assert_eq!(
        setup.states(ENGINE, &sha, "helios-ci").await.last().map(String::as_str),
        Some("pending")
    );
    setup.forge.delete_repository(ENGINE).await;
    setup.forge.create_repository(ENGINE, true).await;
    setup.forge.add_collaborator(ENGINE, BOT).await;
    let url = setup.forge.clone_url(ENGINE);
    setup.forge.git().push(&url, &[("refs/heads/main", Some(&sha))]);
    fs::write(&gate, "").expect("the gate");
    setup.ci.wait_job(&sha, "job", "success");
    // The forge has refused what there was to report, and others are reported meanwhile.
    let other = setup.push("ada/other", "main", SMALL);
    setup.wait("ada/other", &other, "success").await;
    setup.ci.until("what was to be reported is accepted or refused", || {
        let work = setup.ci.get("/api/v1/status")["details"]["work"].clone();
        (work["reports_undelivered"] == work["reports_refused"]).then_some(())
    });
    assert_eq!(setup.forge.statuses(ENGINE, &sha).await, []);
}
