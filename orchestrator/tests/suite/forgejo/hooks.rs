//! Webhooks: the button that tries one, the button that sends a delivery again, and those of a wrong kind.

use super::{
    conversation,
    server::{Forgejo, NewHook},
    setup::{ENGINE, SMALL, Setup},
};

conversation!(test_delivery);
/// It says that the webhook works, and runs nothing.
async fn test_delivery(forge: impl Forgejo) {
    let setup = Setup::new(forge).await;
    let sha = setup.push(ENGINE, "main", SMALL);
    setup.wait(ENGINE, &sha, "success").await;
    setup.answers(ENGINE, setup.hook, 1).await;
    setup.forge.test_hook(ENGINE, setup.hook).await;
    let after = setup.answers(ENGINE, setup.hook, 2).await;
    assert_eq!(after[0].status, 202, "{after:?}");
    assert!(after[0].body.contains("the webhook works"), "{after:?}");
    let heard = setup.deliveries("push").remove(0);
    assert_eq!(heard["state"], "ignored", "{heard}");
    assert!(heard["outcome"].to_string().contains("the webhook works"), "{heard}");
    let next = setup.push(ENGINE, "main", SMALL);
    setup.wait(ENGINE, &next, "success").await;
    assert_eq!(setup.all_runs(), [next, sha]);
}

conversation!(redelivery);
/// A push that is delivered again, under a new id, stays one run, and the answer says so.
async fn redelivery(forge: impl Forgejo) {
    let setup = Setup::new(forge).await;
    let first = setup.push(ENGINE, "main", SMALL);
    setup.wait(ENGINE, &first, "success").await;
    let second = setup.push(ENGINE, "main", SMALL);
    setup.wait(ENGINE, &second, "success").await;
    let answer = setup.redeliver(2).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(answer.body.contains("delivered before"), "{answer:?}");
    let third = setup.push(ENGINE, "main", SMALL);
    setup.wait(ENGINE, &third, "success").await;
    assert_eq!(setup.all_runs(), [third, second, first]);
}

conversation!(wrong_hooks);
/// A hook that sends forms, or another service's messages, is refused with words that say what to change in it.
async fn wrong_hooks(forge: impl Forgejo) {
    let setup = Setup::new(forge).await;
    let url = setup.hook_url();
    for (kind, content_type, words) in [
        ("forgejo", "form", "application/json"),
        ("gitea", "form", "application/json"),
        ("slack", "json", "Forgejo"),
    ] {
        let what = format!("{kind}, {content_type}");
        let hook = NewHook {
            kind,
            content_type,
            url: &url,
            secret: &setup.secret,
        };
        let hook = setup.forge.add_hook(ENGINE, hook).await;
        let sha = setup.push(ENGINE, "main", SMALL);
        setup.wait(ENGINE, &sha, "success").await;
        let refused = setup.answers(ENGINE, hook, 1).await;
        assert!((400..500).contains(&refused[0].status), "{what}: {refused:?}");
        assert!(refused[0].body.contains(words), "{what}: {refused:?}");
        assert!(!refused[0].body.contains("secret"), "{what}: {refused:?}");
        // The right hook beside it ran it once.
        assert_eq!(setup.runs(&sha), 1, "{what}");
    }
}
