//! Deliveries and what is asked for by hand: the truth for administrators, nothing for anybody else.

use axum::http::{Method, StatusCode};
use serde_json::Value;

use super::fixture::{EVIL, Site, node};
use crate::{
    model::trigger::{Retry, Subject},
    store::{DeliveryOutcome, NewDelivery},
};

const SECRET: &str = "the body of a private push";

/// A delivery that was ignored because its repository is not listed.
async fn ignored(site: &Site) {
    let new = NewDelivery {
        connection: "berg".parse().unwrap(),
        key: "k".into(),
        event: "push".into(),
        body: SECRET.into(),
        digest: [1; 32],
        subject: Subject {
            repository_id: Some(9.into()),
            repository: Some("helios/hidden".parse().unwrap()),
            ref_name: Some("refs/heads/<img>".parse().unwrap()),
            commit: Some("a".repeat(40).parse().unwrap()),
        },
    };
    site.store.record_delivery(new).await.unwrap();
    let minute = std::time::Duration::from_secs(60);
    let claimed = site.store.claim_delivery(&node(), minute).await.unwrap().unwrap();
    let outcome = DeliveryOutcome::Ignored {
        reason: format!("not in the list {EVIL}"),
        retry: Retry::Automatic,
    };
    let ended = site.store.finish_delivery(claimed.id, claimed.epoch, outcome).await;
    assert!(ended.unwrap());
}

#[tokio::test]
async fn an_administrator_reads_what_came_of_a_delivery_and_never_its_body() {
    let site = Site::new().await;
    ignored(&site).await;
    let list = site.as_admin(Method::GET, "/api/v1/deliveries", "").await;
    let json: Value = serde_json::from_str(&list.body).unwrap();
    let delivery = &json["deliveries"][0];
    assert_eq!(delivery["state"], "ignored", "{delivery}");
    assert_eq!(delivery["retryable"], true, "{delivery}");
    let outcome = delivery["outcome"].as_str().unwrap();
    assert!(
        outcome.starts_with("ignored: not in the list") && outcome.ends_with("planned again"),
        "{outcome}"
    );
    let page = site.as_admin(Method::GET, "/deliveries", "").await;
    assert_eq!(page.status, StatusCode::OK);
    for shown in ["helios/hidden", "not in the list", "ignored"] {
        assert!(page.body.contains(shown), "{shown}: {}", page.body);
    }
    assert!(
        !page.body.contains("<img src=x") && !page.body.contains("<script>alert"),
        "{}",
        page.body
    );
    for answer in [&list, &page] {
        assert!(!answer.body.contains(SECRET));
    }
    for (query, status) in [
        ("?state=failed", StatusCode::OK),
        ("?state=lost", StatusCode::BAD_REQUEST),
        ("?repository=x", StatusCode::BAD_REQUEST),
        ("?before=x", StatusCode::BAD_REQUEST),
    ] {
        for path in ["/api/v1/deliveries", "/deliveries"] {
            let answer = site.as_admin(Method::GET, &format!("{path}{query}"), "").await;
            assert_eq!(answer.status, status, "{path}{query}");
        }
    }
}

#[tokio::test]
async fn catching_up_names_the_connections_that_do_not_work() {
    let site = Site::new().await;
    let answer = site.as_admin(Method::POST, "/api/v1/catch-up", "").await;
    let json: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(
        json["connections"][0]["broken"], "it does not accept the credentials",
        "{json}"
    );
    assert_eq!(json["missed"], serde_json::json!([]));
}

#[tokio::test]
async fn an_administrator_is_told_what_there_is() {
    let site = Site::new().await;
    for (body, status, says) in [
        (
            r#"{"connection":"brg","repository":"helios/demo","ref":"main"}"#,
            StatusCode::NOT_FOUND,
            "no connection named brg; there are berg",
        ),
        (
            r#"{"connection":"berg","repository":"helios/none","ref":"main"}"#,
            StatusCode::NOT_FOUND,
            "berg has no repository helios/none",
        ),
        (
            r#"{"connection":"berg","repository":"helios/demo","ref":"mian"}"#,
            StatusCode::NOT_FOUND,
            "helios/demo has no branch or tag mian",
        ),
        (
            r#"{"connection":"berg","repository":"helios/demo","ref":"both"}"#,
            StatusCode::UNPROCESSABLE_ENTITY,
            "name refs/heads/both or refs/tags/both",
        ),
        (
            r#"{"connection":"berg","repository":"helios/demo","ref":"main","event":"pull_request"}"#,
            StatusCode::BAD_REQUEST,
            "workflow_dispatch",
        ),
        (
            r#"{"connection":"berg","repository":"helios/demo","ref":"main","workflow":""}"#,
            StatusCode::BAD_REQUEST,
            "workflow file",
        ),
    ] {
        let answer = site.as_admin(Method::POST, "/api/v1/builds", body).await;
        assert_eq!(answer.status, status, "{body}: {}", answer.body);
        assert!(answer.body.contains(says), "{body}: {}", answer.body);
        let stranger = site.send(Method::POST, "/api/v1/builds", &[], body).await;
        assert_eq!(stranger.status, StatusCode::UNAUTHORIZED);
        assert!(!stranger.body.contains("berg"), "{}", stranger.body);
    }
    for (name, event) in [("main", "push"), ("v1", "push"), ("refs/tags/v1", "workflow_dispatch")] {
        let body = format!(r#"{{"connection":"berg","repository":"helios/demo","ref":"{name}","event":"{event}"}}"#);
        let made = site.as_admin(Method::POST, "/api/v1/builds", &body).await;
        assert_eq!(made.status, StatusCode::CREATED, "{}", made.body);
        let made: Value = serde_json::from_str(&made.body).unwrap();
        let path = format!("/api/v1/builds/{}", made["id"].as_str().unwrap());
        let build = site.as_admin(Method::GET, &path, "").await;
        let build: Value = serde_json::from_str(&build.body).unwrap();
        assert_eq!(build["event"], event);
        assert_eq!(
            build["ref"],
            if name == "main" {
                "refs/heads/main"
            } else {
                "refs/tags/v1"
            }
        );
    }
    for path in ["runs", "jobs", "builds"] {
        let path = format!("/api/v1/{path}/01k9zk6x0f5t3b8w2q7m4d1c0e");
        let answer = site.as_admin(Method::GET, &path, "").await;
        assert!(answer.body.contains("01k9zk6x0f5t3b8w2q7m4d1c0e"), "{}", answer.body);
        let stranger = site.get(&path).await;
        assert!(stranger.body.contains("you may not see it"), "{}", stranger.body);
    }
}

/// The token of the fixture belongs to `ada`; what the command line makes for itself belongs to a user's number.
#[tokio::test]
async fn public_pages_name_no_token() {
    let site = Site::new().await;
    let path = format!("/api/v1/runs/{}/cancel", site.public.run);
    assert_eq!(site.as_admin(Method::POST, &path, "").await.status, StatusCode::OK);
    for path in [
        format!("/runs/{}", site.public.run),
        format!("/api/v1/runs/{}", site.public.run),
    ] {
        let seen = site.get(&path).await.body;
        assert!(seen.contains("ada"), "{seen}");
        assert!(!seen.contains("(token "), "{seen}");
    }
}
