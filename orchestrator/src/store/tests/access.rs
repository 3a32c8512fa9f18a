//! Tokens, sessions, and the audit log.

use super::*;
use crate::clock::now_ms;

contract!(
    a_token_is_found_by_its_hash_while_it_is_valid,
    uses_are_noted_once_a_minute,
    a_token_of_one_use_is_used_once,
    a_session_ends_with_its_token_and_its_limits,
    acts_are_written_down,
);

async fn token(lab: &Lab, byte: u8, expires_ms: i64) -> crate::model::ids::TokenId {
    let new = NewToken {
        name: "laptop".into(),
        hash: hash(byte),
        owner: "ann".into(),
        expires_ms,
        scopes: vec!["admin".into()],
    };
    lab.store.create_token(new).await.unwrap()
}

async fn a_token_is_found_by_its_hash_while_it_is_valid(lab: Lab) {
    let id = token(&lab, 1, now_ms() + 60_000).await;
    token(&lab, 2, now_ms() - 60_000).await;
    let found = lab.store.find_token(&hash(1)).await.unwrap().unwrap();
    assert_eq!(
        (found.id, found.owner.as_str(), found.scopes),
        (id, "ann", vec!["admin".to_owned()])
    );
    assert_eq!(lab.store.find_token(&hash(2)).await.unwrap(), None, "expired");
    assert_eq!(lab.store.find_token(&hash(3)).await.unwrap(), None, "unknown");
    assert!(lab.store.revoke_token(id).await.unwrap());
    assert!(!lab.store.revoke_token(id).await.unwrap());
    assert_eq!(lab.store.find_token(&hash(1)).await.unwrap(), None, "revoked");
    let all = lab.store.tokens().await.unwrap();
    let revoked: Vec<_> = all.iter().filter(|token| token.revoked).map(|token| token.id).collect();
    assert_eq!((all.len(), revoked), (2, vec![id]));
}

async fn uses_are_noted_once_a_minute(lab: Lab) {
    token(&lab, 1, now_ms() + 60_000).await;
    let used = async || {
        lab.store.find_token(&hash(1)).await.unwrap().unwrap();
        lab.number("SELECT last_used_ms AS n FROM tokens").await
    };
    let first = used().await;
    assert_eq!(used().await, first);
    lab.sql("UPDATE tokens SET last_used_ms = 5").await;
    assert!(used().await > 5);
}

/// Makes a token with this scope, and says what its exchange gives: whoever shows it, as often as they like.
async fn exchanged(lab: &Lab, byte: u8, scope: &str, expires_ms: i64) -> Vec<TokenRow> {
    let new = NewToken {
        name: "login link".into(),
        hash: hash(byte),
        owner: "ann".into(),
        expires_ms,
        scopes: vec![scope.into()],
    };
    lab.store.create_token(new).await.unwrap();
    let exchange = Exchange {
        shown: hash(byte),
        scope: "login".into(),
        hash: hash(byte + 100),
        scopes: vec!["admin".into()],
    };
    let tries = (0..4).map(|_| lab.store.exchange_token(exchange.clone()));
    let got = futures::future::join_all(tries).await;
    got.into_iter().filter_map(|got| got.unwrap()).collect()
}

async fn a_token_of_one_use_is_used_once(lab: Lab) {
    let soon = now_ms() + 600_000;
    let got = exchanged(&lab, 1, "login", soon).await;
    assert_eq!(got.len(), 1, "of four at once");
    assert_eq!(
        (got[0].owner.as_str(), &got[0].scopes),
        ("ann", &vec!["admin".to_owned()])
    );
    assert!(got[0].expires_ms > soon, "it lives as long as a session");
    assert_eq!(lab.store.find_token(&hash(1)).await.unwrap(), None, "used up");
    assert_eq!(
        lab.store.find_token(&hash(101)).await.unwrap().map(|t| t.id),
        Some(got[0].id)
    );

    assert_eq!(exchanged(&lab, 2, "login", now_ms() - 1).await, [], "expired");
    assert_eq!(exchanged(&lab, 3, "admin", soon).await, [], "not of one use");
    assert!(
        lab.store.find_token(&hash(3)).await.unwrap().is_some(),
        "and still itself"
    );
    let id = token(&lab, 4, soon).await;
    lab.sql("UPDATE tokens SET scopes = '[\"login\"]' WHERE hash NOT IN (SELECT hash FROM sessions)")
        .await;
    assert!(lab.store.revoke_token(id).await.unwrap());
    let revoked = Exchange {
        shown: hash(4),
        scope: "login".into(),
        hash: hash(104),
        scopes: vec!["admin".into()],
    };
    assert_eq!(lab.store.exchange_token(revoked).await.unwrap(), None, "revoked");
}

async fn a_session_ends_with_its_token_and_its_limits(lab: Lab) {
    let id = token(&lab, 1, now_ms() + 60_000).await;
    let find = async || lab.store.find_session(&hash(9)).await.unwrap();
    let open = async || lab.store.create_session(&hash(9), id, "csrf").await.unwrap();
    open().await;
    let session = find().await.unwrap();
    assert_eq!((session.token.id, session.csrf.as_str()), (id, "csrf"));
    lab.sql("UPDATE sessions SET seen_ms = seen_ms - 11 * 3600 * 1000")
        .await;
    assert!(find().await.is_some(), "and this use is noted");
    lab.sql("UPDATE sessions SET seen_ms = seen_ms - 11 * 3600 * 1000")
        .await;
    assert!(find().await.is_some());
    lab.sql("UPDATE sessions SET seen_ms = seen_ms - 13 * 3600 * 1000")
        .await;
    assert_eq!(find().await, None, "idle for too long");
    lab.store.end_session(&hash(9)).await.unwrap();
    open().await;
    lab.sql("UPDATE sessions SET created_ms = created_ms - 8 * 24 * 3600 * 1000")
        .await;
    assert_eq!(find().await, None, "too old however busy");
    lab.store.end_session(&hash(9)).await.unwrap();
    open().await;
    lab.store.end_session(&hash(9)).await.unwrap();
    assert_eq!(find().await, None, "ended");
    open().await;
    lab.store.revoke_token(id).await.unwrap();
    assert_eq!(find().await, None, "its token was revoked");
}

async fn acts_are_written_down(lab: Lab) {
    let entry = AuditEntry {
        who: "ann".into(),
        action: "cancel".into(),
        subject: "run".into(),
        evidence: "x".repeat(10_000),
        request_id: "1".into(),
    };
    lab.store.audit(entry).await.unwrap();
    assert_eq!(
        lab.number("SELECT CAST(LENGTH(evidence) AS BIGINT) AS n FROM audit")
            .await,
        2000
    );
}
