//! Webhooks: the button that tries one, the button that sends a delivery again, and those of a wrong kind.

use super::{
    conversation,
    server::Forgejo,
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
    let received = setup.ci.until("the test delivery is read", || {
        let newest = setup.deliveries("push").remove(0);
        (newest["state"] != "received").then_some(newest)
    });
    assert_eq!(received["state"], "ignored", "{received}");
    assert!(
        received["outcome"].to_string().contains("the webhook works"),
        "{received}"
    );
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
    let form = "set the webhook's content type to application/json";
    for (kind, content_type, status, words) in [
        ("forgejo", "form", 415, form),
        ("gitea", "form", 415, form),
        (
            "slack",
            "json",
            422,
            "a webhook of the type Slack sends it; make one of the type Forgejo or Gitea instead",
        ),
        (
            "msteams",
            "json",
            422,
            "a webhook of the type Microsoft Teams sends it; make one of the type Forgejo or Gitea instead",
        ),
    ] {
        let what = format!("{kind}, {content_type}");
        let refused = setup.answer_of(kind, content_type, &url).await;
        assert_eq!(refused.status, status, "{what}: {refused:?}");
        assert!(refused.body.contains(words), "{what}: {refused:?}");
        assert!(!refused.body.contains("secret"), "{what}: {refused:?}");
    }
}

conversation!(slash_at_the_end);
/// A Target URL with a slash at its end is the same URL: the first of the two deliveries of a push runs it.
async fn slash_at_the_end(forge: impl Forgejo) {
    let setup = Setup::new(forge).await;
    let url = format!("{}/", setup.hook_url());
    let taken = setup.answer_of("forgejo", "json", &url).await;
    assert!(matches!(taken.status, 200 | 202), "{taken:?}");
}
