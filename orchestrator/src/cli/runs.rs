//! `helios-ci runs`

use clap::Args;
use serde_json::Value;

use super::{Common, Exit, Outcome, client::Client};

#[derive(Debug, Args)]
pub(super) struct RunsArgs {
    /// Only of this repository (`owner/name`).
    #[arg(long)]
    repository: Option<String>,
    /// Only in this state: active, success, failure, skipped, cancelled or error.
    #[arg(long)]
    state: Option<String>,
    /// How many at most.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100))]
    limit: u32,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(common: &Common, args: RunsArgs) -> Outcome {
    let client = Client::connect(common).await?;
    let mut path = format!("/api/v1/runs?limit={}", args.limit);
    for (name, value) in [("repository", &args.repository), ("state", &args.state)] {
        if let Some(value) = value {
            path.push_str(&format!("&{name}={}", encode(value)));
        }
    }
    let answer = client.get(&path).await?;
    client.close().await;
    if args.json {
        println!("{answer:#}");
        return Ok(Exit::Success);
    }
    for run in answer["runs"].as_array().into_iter().flatten() {
        println!("{}", line(run));
    }
    Ok(Exit::Success)
}

/// One run in one line. Foreign text is freed of control characters: it goes to a terminal.
pub(super) fn line(run: &Value) -> String {
    format!(
        "{}  {:<9}  {:>2}/{:<2}  {} {} {}  {}",
        text(&run["id"]),
        text(&run["state"]),
        run["jobs_ended"],
        run["jobs"],
        text(&run["repository"]),
        text(&run["ref"]).trim_start_matches("refs/heads/"),
        text(&run["commit"]).chars().take(10).collect::<String>(),
        text(&run["workflow"]),
    )
}

/// A JSON string as it may be printed.
pub(super) fn text(value: &Value) -> String {
    value
        .as_str()
        .unwrap_or("-")
        .chars()
        .filter(|c| !c.is_control())
        .collect()
}

/// Percent-encodes a query value.
pub(super) fn encode(value: &str) -> String {
    value
        .bytes()
        .map(|b| {
            if b.is_ascii_alphanumeric() || b"-._~/".contains(&b) {
                (b as char).to_string()
            } else {
                format!("%{b:02X}")
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_to_a_terminal_holds_no_escape() {
        let run = serde_json::json!({"id": "x", "state": "active", "workflow": "a\u{1b}]0;evil\u{7}", "jobs": 1, "jobs_ended": 0});
        assert!(!line(&run).contains('\u{1b}') && !line(&run).contains('\u{7}'));
    }

    #[test]
    fn query_values_cannot_add_parameters() {
        assert_eq!(encode("a/b&state=x y"), "a/b%26state%3Dx%20y");
    }
}
