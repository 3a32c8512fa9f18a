//! The clock, by the forges' own, and the forges: whether they answer and accept us.

use std::time::Duration;

use http::{Request, header};
use http_body_util::Full;

use super::{Findings, Line};
use crate::{
    clock::now_ms,
    config::{Config, Connection},
    error_chain::chain,
    forge::{self, health, http::Outgoing},
};

const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// Further apart, signed tokens are refused, and guests, which are told the time by us, build files of the future.
const APART_S: i64 = 60;

pub(super) async fn check(config: &Config, findings: &mut Findings) {
    for connection in config.connections.values() {
        if let Some(line) = clock(connection).await {
            findings.add(line);
            break;
        }
    }
    for (id, connection) in &config.connections {
        let name = format!("connection {id}");
        let hook = format!("{}/hooks/{id}", config.public_url);
        let forge = match forge::connect(id, connection) {
            Ok(forge) => forge,
            Err(error) => {
                findings.add(Line::failure(name, chain(&error), "repair the connection's settings"));
                continue;
            }
        };
        let state = health::probe(forge.as_ref()).await;
        findings.add(match state.fix() {
            None => Line::ok(name, format!("{} answers: {state}; webhook {hook}", connection.url)),
            Some(fix) => Line::failure(name, state, fix),
        });
    }
}

/// How far this host's clock is from a forge's, which stands in its answers (RFC 9110, `Date`); none without an answer.
async fn clock(connection: &Connection) -> Option<Line> {
    let url = &connection.url;
    let forge = Outgoing::new(url, connection.allow_private)
        .ok()?
        .with_deadline(ANSWER_WITHIN);
    let answer = forge.send(Request::head(url).body(Full::default()).ok()?).await.ok()?;
    let date = answer.headers().get(header::DATE)?.to_str().ok()?;
    let theirs = chrono::DateTime::parse_from_rfc2822(date).ok()?.timestamp();
    let ahead = now_ms() / 1000 - theirs;
    Some(if ahead.abs() <= APART_S {
        Line::ok("clock", format!("within {APART_S} s of {url}"))
    } else {
        let how = if ahead > 0 { "ahead of" } else { "behind" };
        Line::warning(
            "clock",
            format!("this host is {} s {how} {url}", ahead.abs()),
            "let it follow a time server: svcadm enable network/ntp (illumos), timedatectl set-ntp true (Linux)",
        )
    })
}
