//! A kept machine on its job's page and in the API.

use axum::http::{Method, StatusCode};
use serde_json::Value;

use super::fixture::{Answer, FORM, ORIGIN, Site, between};
use crate::{
    model::{names::MachineName, state::JobResult},
    store::AttemptEnd,
};

/// Presses a button of a job's page.
async fn press(site: &Site, cookie: &str, page: &str, what: &str) -> Answer {
    let body = site.send(Method::GET, page, &[("cookie", cookie)], "").await.body;
    let form = format!("csrf={}", between(&body, "name=\"csrf\" value=\"", "\""));
    let headers = [("cookie", cookie), ("origin", ORIGIN), ("content-type", FORM)];
    site.send(Method::POST, &format!("{page}/{what}"), &headers, &form)
        .await
}

fn json(answer: &Answer) -> Value {
    serde_json::from_str(&answer.body).unwrap_or_else(|e| panic!("{e}: {}", answer.body))
}

#[tokio::test]
async fn a_machine_is_kept_and_released_by_buttons_and_its_console_is_said_to_those_who_may() {
    let site = Site::new().await;
    let (attempt, epoch, job) = site.claim().await;
    let (name, page, cookie) = (MachineName::of(attempt), format!("/jobs/{job}"), site.login().await);
    let read = async |cookie: &str| site.send(Method::GET, &page, &[("cookie", cookie)], "").await.body;
    assert!(read(&cookie).await.contains("Keep machine"));
    assert!(!read("").await.contains("Keep machine"), "for whoever is logged in");

    assert_eq!(press(&site, &cookie, &page, "keep").await.status, StatusCode::SEE_OTHER);
    let body = read(&cookie).await;
    assert!(
        body.contains("to be kept for 30 min") && body.contains("Do not keep machine"),
        "{body}"
    );
    assert_eq!(
        press(&site, &cookie, &page, "release").await.status,
        StatusCode::SEE_OTHER
    );
    assert!(!read(&cookie).await.contains("to be kept"));
    let again = press(&site, &cookie, &page, "release").await;
    assert_eq!(again.status, StatusCode::CONFLICT, "{}", again.body);

    // Through the API, for a time of one's own, within bounds.
    let path = format!("/api/v1/machines/{name}");
    for body in ["{\"for_s\":0}", "{\"for_s\":86401}"] {
        let answer = site.as_admin(Method::POST, &format!("{path}/keep"), body).await;
        assert_eq!(
            answer.status,
            StatusCode::UNPROCESSABLE_ENTITY,
            "{body}: {}",
            answer.body
        );
    }
    let answer = site
        .as_admin(Method::POST, &format!("{path}/keep"), "{\"for_s\":1650}")
        .await;
    assert_eq!(json(&answer)["outcome"], "at_its_end", "{}", answer.body);
    let live = site.as_admin(Method::POST, &format!("{path}/destroy"), "").await;
    assert_eq!(json(&live)["error"]["code"], "live", "{}", live.body);
    let typed = site.as_admin(Method::POST, &format!("{path}/console"), "ls").await;
    assert_eq!(json(&typed)["error"]["code"], "not_kept", "{}", typed.body);
    let end = AttemptEnd::Result {
        result: JobResult::Failure,
        message: "exit code 2".into(),
    };
    site.store.end_attempt(attempt, epoch, end, 3).await.unwrap();
    assert!(read(&cookie).await.contains("It is being cut off from its node"));
    site.store.machine_cut_off(&name, "zone").await.unwrap();
    let body = read(&cookie).await;
    assert!(
        body.contains("(in 27 min) by ada") && body.contains("counts as busy"),
        "{body}"
    );
    assert!(body.contains(&format!("<code>zlogin -C {name}</code>")), "{body}");
    assert!(
        body.contains("Release machine") && body.contains("Keep longer"),
        "{body}"
    );
    let public = read("").await;
    assert!(public.contains("kept until") && !public.contains("zlogin"), "{public}");
    let why = site.get(&format!("/api/v1/jobs/{job}/why")).await;
    assert!(json(&why)["keep"]["attach"].is_null(), "{}", why.body);

    // Nothing runs here, so the console cannot be had, and stays free.
    let typed = site.as_admin(Method::POST, &format!("{path}/console"), "").await;
    assert_eq!(json(&typed)["error"]["code"], "machine", "{}", typed.body);
    let long = "x".repeat(4097);
    let typed = site.as_admin(Method::POST, &format!("{path}/console"), &long).await;
    assert_eq!(typed.status, StatusCode::BAD_REQUEST);
    assert_eq!(
        json(&site.as_admin(Method::GET, &path, "").await)["keep"]["console_free"],
        true
    );
    site.store.take_console(&name, "eve").await.unwrap();
    let body = read(&cookie).await;
    assert!(body.contains("used by eve") && !body.contains("zlogin"), "{body}");
    let asked = site
        .as_admin(Method::POST, &format!("{path}/console/release"), "")
        .await;
    assert_eq!(json(&asked)["keep"]["console_free"], false, "{}", asked.body);
    site.store.console_free(&name).await.unwrap();
    assert!(read(&cookie).await.contains("zlogin -C"));

    assert_eq!(
        press(&site, &cookie, &page, "release").await.status,
        StatusCode::SEE_OTHER
    );
    site.store.end_keeps(&super::fixture::node()).await.unwrap();
    let body = read(&cookie).await;
    assert!(!body.contains("kept until") && !body.contains("Keep"), "{body}");
    let late = site.as_admin(Method::POST, &format!("{path}/keep"), "").await;
    assert_eq!(json(&late)["error"]["code"], "too_late", "{}", late.body);
}

#[tokio::test]
async fn a_machine_of_another_node_is_kept_there_and_its_console_is_asked_for_there() {
    let site = Site::new().await;
    let other = "moss".parse().unwrap();
    let instance = crate::model::ids::InstanceId::new();
    let minute = std::time::Duration::from_secs(60);
    site.store.register_node(&other, instance, minute).await.unwrap();
    let classes = ["helios".to_owned()];
    let claimed = site.store.claim_job(&other, instance, &classes).await.unwrap().unwrap();
    let path = format!("/api/v1/machines/{}", claimed.job);
    let kept = site.as_admin(Method::POST, &format!("{path}/keep"), "").await;
    assert_eq!(kept.status, StatusCode::OK, "{}", kept.body);
    for (method, body) in [(Method::GET, ""), (Method::POST, "ls")] {
        let console = site.as_admin(method, &format!("{path}/console"), body).await;
        assert_eq!(json(&console)["error"]["code"], "other_node", "{}", console.body);
        assert!(console.body.contains("node moss"), "{}", console.body);
    }
}
