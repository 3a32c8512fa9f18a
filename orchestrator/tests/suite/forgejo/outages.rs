//! A forge that is away when a job ends.

use std::fs;

use super::{
    conversation,
    server::Forgejo,
    setup::{ENGINE, SMALL, Setup, gated},
};

/// Jobs of two repositories run; they end while the forge is as `away` makes it, and their final statuses are there once
/// `back` has mended it.
async fn ends_meanwhile<F: Forgejo>(forge: F, away: impl AsyncFn(&mut F), back: impl AsyncFn(&mut F)) {
    let mut setup = Setup::new(forge).await;
    setup.add_repository("ada/other").await;
    let gate = setup.ci.dir.path().join("gate");
    let pushed: Vec<(&str, String)> = [ENGINE, "ada/other"]
        .map(|path| (path, setup.push(path, "main", &gated(&gate))))
        .into();
    for (path, sha) in &pushed {
        setup.ci.wait_job(sha, "job", "active");
        setup.wait(path, sha, "pending").await;
    }
    away(&mut setup.forge).await;
    fs::write(&gate, "").expect("the gate");
    for (_, sha) in &pushed {
        setup.ci.wait_job(sha, "job", "success");
    }
    setup.ci.until("the daemon knows that the forge is away", || {
        let log = setup.ci.daemon_log();
        log.contains("the reports of a forge wait").then_some(())
    });
    back(&mut setup.forge).await;
    for (path, sha) in &pushed {
        setup.wait(path, sha, "success").await;
        // One that was sent while the forge was away may be done after all, when its caller has long given up.
        let states = setup.states(path, sha, "helios-ci").await;
        let copies = states.iter().filter(|state| *state == "success").count();
        assert!(copies <= 2, "{states:?}");
        assert_eq!(states.last().map(String::as_str), Some("success"), "{states:?}");
    }
    let next = setup.push(ENGINE, "main", SMALL);
    setup.wait(ENGINE, &next, "success").await;
    assert_eq!(setup.all_runs().len(), 3);
}

conversation!(outage);
/// Connections are refused.
async fn outage(forge: impl Forgejo) {
    ends_meanwhile(
        forge,
        async |forge| forge.stop().await,
        async |forge| forge.restart().await,
    )
    .await;
}

conversation!(stopped_process);
/// Connections are taken and nothing is answered. What was sent meanwhile may be read and done when it goes on.
async fn stopped_process(forge: impl Forgejo) {
    ends_meanwhile(forge, async |forge| forge.freeze(), async |forge| forge.thaw()).await;
}
