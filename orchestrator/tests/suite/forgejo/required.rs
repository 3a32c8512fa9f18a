//! The check that a branch requires.

use super::{
    conversation,
    server::{Forgejo, Merge},
    setup::{ENGINE, FAILING, SMALL, Setup, gated},
};

conversation!(required_check);
/// A branch that requires `helios-ci` takes nothing while it is pending or red, and takes what is green.
async fn required_check(forge: impl Forgejo) {
    let setup = Setup::new(forge).await;
    let main = setup.push(ENGINE, "main", SMALL);
    setup.wait(ENGINE, &main, "success").await;
    setup.forge.require(ENGINE, "main", "helios-ci").await;

    let red = setup.push(ENGINE, "side", FAILING);
    let pull = setup.forge.open_pull(ENGINE, "side").await;
    setup.wait(ENGINE, &red, "failure").await;
    let blocked = setup.forge.merge(ENGINE, pull, &red).await;
    assert!(matches!(blocked, Merge::Blocked(_)), "{blocked:?}");

    let gate = setup.ci.dir.path().join("gate");
    let sha = setup.push(ENGINE, "side", &gated(&gate));
    setup.wait(ENGINE, &sha, "pending").await;
    let blocked = setup.forge.merge(ENGINE, pull, &sha).await;
    assert!(matches!(blocked, Merge::Blocked(_)), "{blocked:?}");

    std::fs::write(&gate, "").expect("the gate");
    setup.wait(ENGINE, &sha, "success").await;
    assert_eq!(setup.forge.merge(ENGINE, pull, &sha).await, Merge::Done);
}
