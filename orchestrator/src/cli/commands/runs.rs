//! `helios-ci runs`

use clap::Args;

use crate::{
    cli::{
        Common, Exit, Outcome,
        client::{Client, ClientArgs, json_text},
        table::{Table, moment},
    },
    web::api::types::{Run, RunList},
};

#[derive(Debug, Args)]
#[command(after_help = "\
Times are UTC. A row is one workflow file for one push or request; `helios-ci show ID` lists its jobs.

Examples:
  helios-ci runs
  helios-ci runs --repository ada/engine --state failure --limit 5
  helios-ci runs --json | jq -r '.runs[] | select(.event == \"push\") | .id'")]
pub(in crate::cli) struct RunsArgs {
    #[command(flatten)]
    client: ClientArgs,
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

pub(in crate::cli) async fn run(common: &Common, args: RunsArgs) -> Outcome {
    let mut path = format!("/api/v1/runs?limit={}", args.limit);
    for (name, value) in [("repository", &args.repository), ("state", &args.state)] {
        if let Some(value) = value {
            path.push_str(&format!("&{name}={}", encode(value)));
        }
    }
    let list: RunList = Client::with(common, &args.client, async |client| Ok(client.get(&path).await?)).await?;
    if args.json {
        println!("{}", json_text(&list)?);
    } else if list.runs.is_empty() {
        eprintln!("There are no such runs.");
    } else {
        print!("{}", table(&list.runs));
    }
    Ok(Exit::Success)
}

/// Runs below a header, the newest first.
pub(in crate::cli) fn table(runs: &[Run]) -> String {
    let mut table = Table::new(&[
        "ID",
        "CREATED",
        "STATE",
        "JOBS",
        "EVENT",
        "ACTOR",
        "REPOSITORY",
        "REF",
        "COMMIT",
        "WORKFLOW",
    ]);
    for run in runs {
        table.row([
            &run.id.to_string(),
            &moment(&run.created),
            run.state.as_str(),
            &format!("{}/{}", run.jobs_ended, run.jobs),
            &run.event,
            &run.actor,
            run.repository.as_str(),
            run.ref_name.short(),
            run.commit.short(),
            &run.workflow,
        ]);
    }
    table.text()
}

/// Percent-encodes a query value.
pub(in crate::cli) fn encode(value: &str) -> String {
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
    fn a_run_is_one_line_below_the_header() {
        let run = serde_json::json!({
            "id": "01k9zk6x0f5t3b8w2q7m4d1c0e", "build": "01k9zk6x0f5t3b8w2q7m4d1c0f", "connection": "codeberg",
            "repository": "ada/engine", "ref": "refs/heads/main", "commit": "a".repeat(40), "title": "t",
            "actor": "ada", "event": "push", "workflow": "a\u{1b}]0;evil\u{7}", "path": ".github/workflows/ci.yml",
            "attempt": 1, "state": "active", "created": "2026-11-21T01:19:01.000Z", "ended": null, "jobs_ended": 0,
            "jobs": 1, "a_field_of_tomorrow": true,
        });
        let run: Run = serde_json::from_value(run).unwrap();
        insta::assert_snapshot!(table(&[run]), @r"
        ID                          CREATED              STATE   JOBS  EVENT  ACTOR  REPOSITORY  REF   COMMIT      WORKFLOW
        01k9zk6x0f5t3b8w2q7m4d1c0e  2026-11-21 01:19:01  active  0/1   push   ada    ada/engine  main  aaaaaaaaaa  a]0;evil
        ");
    }

    #[test]
    fn query_values_cannot_add_parameters() {
        assert_eq!(encode("a/b&state=x y"), "a/b%26state%3Dx%20y");
    }
}
