//! A page for people: repositories, and what was reported about each commit, in order.

use std::{fmt::Write as _, sync::Arc};

use axum::{extract::State, response::Html};

use crate::{state::Shared, time::rfc3339};

/// `/`.
pub(crate) async fn index(State(shared): State<Arc<Shared>>) -> Html<String> {
    let state = shared.state();
    let mut page = String::from(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>fakeforge</title>\
         <h1>fakeforge</h1><p>A local forge for demonstrations and tests.</p>",
    );
    for repository in state.repositories() {
        // Writing to a String cannot fail.
        let _ = write!(
            page,
            "<h2>{}</h2><p>{} #{}{}: <code>git clone {}</code></p>",
            escape(&repository.path),
            repository.kind.name(),
            repository.id,
            if repository.private { ", private" } else { "" },
            escape(&format!("{}/{}.git", shared.url, repository.path)),
        );
        let mut commits: Vec<&str> = Vec::new();
        for received in state.history.iter().filter(|r| r.repository == repository.id) {
            if !commits.contains(&received.sha.as_str()) {
                commits.push(&received.sha);
            }
        }
        for sha in commits.into_iter().rev() {
            let _ = write!(
                page,
                "<h3><code>{}</code></h3><table><tr><th>time<th>check<th>state<th>description<th>link</tr>",
                escape(sha)
            );
            for received in state
                .history
                .iter()
                .filter(|r| r.repository == repository.id && r.sha == sha)
            {
                let link = received
                    .target_url
                    .as_deref()
                    .filter(|u| u.starts_with("http://") || u.starts_with("https://"));
                let link = link.map_or_else(String::new, |u| format!("<a href=\"{}\">details</a>", escape(u)));
                let _ = write!(
                    page,
                    "<tr><td>{}<td>{}<td>{}<td>{}<td>{link}</tr>",
                    rfc3339(received.at_ms),
                    escape(&received.context),
                    escape(received.word()),
                    escape(&received.description),
                );
            }
            page.push_str("</table>");
        }
    }
    Html(page)
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}
