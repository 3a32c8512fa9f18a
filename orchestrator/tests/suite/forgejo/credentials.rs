//! A daemon whose token cannot do what it must: the push waits, what is wrong is said, and once that is mended the push
//! runs, once.

use super::{
    conversation,
    server::{BOT, Forgejo},
    setup::{ENGINE, SCOPES, SMALL, Setup},
};

const REFUSED: &str = "does not accept helios-ci's credentials";
const NO_RIGHT: &str = "helios-ci may not read this repository";

/// The status page names the repository.
fn is_named<F>(setup: &Setup<F>) {
    setup.ci.until("the repository is named", || {
        let status = setup.ci.get("/api/v1/status");
        let fault = &status["details"]["connections"][0]["repositories"][0];
        (fault["path"] == ENGINE && fault["fix"].is_string()).then_some(())
    });
}

/// Nothing was lost and nothing was done twice.
async fn runs_once<F: Forgejo>(setup: &Setup<F>, sha: &str) {
    setup.wait(ENGINE, sha, "success").await;
    let next = setup.push(ENGINE, "main", SMALL);
    setup.wait(ENGINE, &next, "success").await;
    assert_eq!(setup.runs(sha), 1);
}

/// A push that waits because the token was taken back after the first one.
async fn push_with_a_revoked_token<F: Forgejo>(forge: F) -> (Setup<F>, String) {
    let setup = Setup::new(forge).await;
    let first = setup.push(ENGINE, "main", SMALL);
    setup.wait(ENGINE, &first, "success").await;
    setup.forge.revoke_token(BOT, &setup.token()).await;
    let sha = setup.push(ENGINE, "main", SMALL);
    setup.wait_outcome(&sha, REFUSED);
    (setup, sha)
}

conversation!(revoked_token);
/// A token that was taken back: with a new one the push runs by itself.
async fn revoked_token(forge: impl Forgejo) {
    let (setup, sha) = push_with_a_revoked_token(forge).await;
    assert_eq!(setup.runs(&sha), 0);
    setup.renew_token(&SCOPES).await;
    runs_once(&setup, &sha).await;
}

conversation!(revoked_token_and_redelivery);
/// The same, with somebody who presses "redeliver" too early, and once more when it is mended.
async fn revoked_token_and_redelivery(forge: impl Forgejo) {
    let (setup, sha) = push_with_a_revoked_token(forge).await;
    // The first push, this one, this one again.
    let early = setup.redeliver(2).await;
    assert!(early.body.contains(REFUSED), "{early:?}");
    setup.renew_token(&SCOPES).await;
    let later = setup.redeliver(3).await;
    assert!(matches!(later.status, 200 | 202), "{later:?}");
    runs_once(&setup, &sha).await;
}

conversation!(token_without_scope);
/// A token that may do other things: what it lacks is named.
async fn token_without_scope(forge: impl Forgejo) {
    let setup = Setup::new(forge).await;
    let first = setup.push(ENGINE, "main", SMALL);
    setup.wait(ENGINE, &first, "success").await;
    for scopes in [&["write:issue"][..], &["public-only", "write:repository"]] {
        setup.renew_token(scopes).await;
        let sha = setup.push(ENGINE, "main", SMALL);
        setup.wait_outcome(&sha, NO_RIGHT);
        is_named(&setup);
        assert_eq!(setup.runs(&sha), 0, "{scopes:?}");
        setup.renew_token(&SCOPES).await;
        runs_once(&setup, &sha).await;
    }
}

conversation!(bot_is_no_collaborator);
/// The bot is let in after the first push, and once more after it was sent away; somebody presses "redeliver".
async fn bot_is_no_collaborator(forge: impl Forgejo) {
    let setup = Setup::without_right(forge, &SCOPES).await;
    // Pushes, and pushes delivered again.
    let mut answered = 0;
    for _ in ["never let in", "sent away"] {
        let sha = setup.push(ENGINE, "main", SMALL);
        setup.wait_outcome(&sha, NO_RIGHT);
        is_named(&setup);
        assert_eq!(setup.runs(&sha), 0);
        setup.forge.add_collaborator(ENGINE, BOT).await;
        let answer = setup.redeliver(answered + 1).await;
        assert!(matches!(answer.status, 200 | 202), "{answer:?}");
        runs_once(&setup, &sha).await;
        answered += 3;
        setup.forge.remove_collaborator(ENGINE, BOT).await;
    }
}
