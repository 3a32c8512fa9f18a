//! The clock, by the forges' own, and the forges: whether they answer and accept us, and let us use what is listed.

use std::time::Duration;

use http::{Request, header};
use http_body_util::Full;

use super::{Findings, Line};
use crate::{
    clock::now_ms,
    config::{Config, Connection},
    error_chain::chain,
    forge::{
        self, Access, CheckedRepository,
        health::{self, Probed},
        http::Outgoing,
    },
    model::names::ConnectionId,
};

const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// Further apart, signed tokens are refused, and guests, which get the time from us, build files of the future.
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
        let Probed {
            state, repositories, ..
        } = health::probe(forge.as_ref(), &connection.repositories).await;
        findings.add(match state.fix() {
            None => {
                let all = match connection.repositories.is_empty() {
                    true => "; no `repositories` are listed, so its rights to none were asked about",
                    false => "",
                };
                Line::ok(
                    name,
                    format!("{} answers: {state}{all}; webhook {hook}", connection.url),
                )
            }
            Some(fix) => Line::failure(name, state, fix),
        });
        for found in &repositories {
            findings.add(repository(id, connection, found));
        }
    }
}

/// What a connection may do with one repository.
fn repository(id: &ConnectionId, connection: &Connection, found: &CheckedRepository) -> Line {
    let path = &found.path;
    let name = format!("repository {path} of {id}");
    match &found.access {
        Access::Granted { actions: false } => Line::ok(name, "the connection has the rights it needs"),
        Access::Granted { actions: true } => Line::warning(
            name,
            "the connection has the rights it needs; but the forge's own Actions are on there: they take \
             `.forgejo/workflows` too, and without a runner their checks stay pending",
            format!(
                "keep workflows in `.helios/workflows`, or turn Actions off in the repository's settings, under Units, or \
                 with PATCH {}/api/v1/repos/{path} {{\"has_actions\": false}} as its administrator",
                connection.url.trim_end_matches('/')
            ),
        ),
        Access::Missing { reason, fix } => Line::failure(name, reason, fix),
        Access::Unknown { reason } => Line::warning(name, reason, "ask again: helios-ci doctor"),
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
