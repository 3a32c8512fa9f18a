//! `helios-ci trigger`

use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use super::{
    Common, Exit, Outcome,
    client::Client,
    runs::{encode, line, text},
};

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  helios-ci trigger codeberg ada/engine main --wait")]
pub(super) struct TriggerArgs {
    /// The forge connection of the configuration.
    connection: String,
    /// `owner/name`.
    repository: String,
    /// A branch, or a full ref such as refs/tags/v1.
    r#ref: String,
    /// The commit; it must be what the ref points at or be reachable from it.
    #[arg(long)]
    commit: Option<String>,
    /// Wait for the end of all runs and end with the worst result; when nothing runs, with 1.
    #[arg(long)]
    wait: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// How often a build that is waited for is looked at.
const LOOK: Duration = Duration::from_millis(500);

pub(super) async fn run(common: &Common, args: TriggerArgs) -> Outcome {
    let client = Client::connect(common).await?;
    let body =
        json!({"connection": args.connection, "repository": args.repository, "ref": args.r#ref, "commit": args.commit});
    let body = match body {
        Value::Object(fields) => Value::Object(fields.into_iter().filter(|(_, value)| !value.is_null()).collect()),
        other => other,
    };
    let created = client.post("/api/v1/builds", Some(body)).await?;
    let id = text(&created["id"]);
    if !args.wait {
        client.close().await;
        if args.json {
            println!("{created:#}")
        } else {
            println!("build {id}")
        }
        return Ok(Exit::Success);
    }
    let build = loop {
        let build = client.get(&format!("/api/v1/builds/{}", encode(&id))).await?;
        let runs = build["runs"].as_array().map_or(&[][..], Vec::as_slice);
        let planned = build["state"] != "received";
        if planned && runs.iter().all(|run| run["state"] != "active") {
            break build;
        }
        tokio::time::sleep(LOOK).await;
    };
    client.close().await;
    let runs = build["runs"].as_array().cloned().unwrap_or_default();
    if args.json {
        println!("{build:#}");
    } else {
        for run in &runs {
            println!("{}", line(run));
        }
        if runs.is_empty() {
            println!("{}: {}", text(&build["state"]), text(&build["reason"]));
        }
    }
    if build["state"] == "failed" {
        return Ok(Exit::Error);
    }
    let worst = runs
        .iter()
        .map(|run| text(&run["state"]))
        .filter(|state| state != "skipped")
        .map(|state| Exit::of_state(&state))
        .max_by_key(|exit| match exit {
            Exit::Success => 0,
            Exit::Cancelled => 1,
            Exit::Failure => 2,
            _ => 3,
        });
    // Who waits for runs does not call it a success when there are none, or when all that they would do was skipped.
    Ok(worst.unwrap_or(Exit::Failure))
}
