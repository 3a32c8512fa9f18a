//! `helios-ci trigger`

use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::{
    Common, Exit, Outcome,
    client::{Client, ClientError},
    runs::{encode, line, text},
};

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  helios-ci trigger codeberg ada/engine main --wait\n  helios-ci trigger codeberg ada/engine v1.2 --workflow release.yml"
)]
pub(super) struct TriggerArgs {
    /// The forge connection of the configuration.
    connection: String,
    /// `owner/name`.
    repository: String,
    /// A branch or tag, or its full name such as refs/tags/v1.
    r#ref: String,
    /// Only this workflow file, by path or name, whatever it listens to.
    #[arg(long)]
    workflow: Option<String>,
    /// What workflow files are asked for: those that a push of the ref would run, or those for `workflow_dispatch`.
    #[arg(long, value_enum, default_value_t = AskedEvent::Push)]
    event: AskedEvent,
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

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum AskedEvent {
    /// As if the ref had been pushed.
    Push,
    /// As if started by hand at the forge.
    #[value(name = "workflow_dispatch")]
    WorkflowDispatch,
}

impl AskedEvent {
    fn word(self) -> &'static str {
        match self {
            Self::Push => "push",
            Self::WorkflowDispatch => "workflow_dispatch",
        }
    }
}

/// How often a build that is waited for is looked at.
const LOOK: Duration = Duration::from_millis(500);
/// How long a build is waited for to be planned when nobody waits for its end: a forge that is away may take for ever.
const PLANNED_WITHIN: Duration = Duration::from_secs(60);

pub(super) async fn run(common: &Common, args: TriggerArgs) -> Outcome {
    let client = Client::connect(common).await?;
    let mut body = json!({
        "connection": args.connection, "repository": args.repository, "ref": args.r#ref, "event": args.event.word(),
    });
    for (name, value) in [("commit", &args.commit), ("workflow", &args.workflow)] {
        if let Some(value) = value {
            body[name] = json!(value);
        }
    }
    let created = client.post("/api/v1/builds", Some(body)).await?;
    let id = text(&created["id"]);
    let build = follow(&client, &id, args.wait).await;
    client.close().await;
    let build = build?;
    let runs = build["runs"].as_array().map_or(&[][..], Vec::as_slice);
    if args.json {
        println!("{build:#}");
    } else {
        say(&id, &build, runs);
    }
    Ok(exit(&build, runs, args.wait))
}

/// The build once it was planned, or once its runs have ended.
async fn follow(client: &Client, id: &str, to_the_end: bool) -> Result<Value, ClientError> {
    let since = Instant::now();
    loop {
        let build = client.get(&format!("/api/v1/builds/{}", encode(id))).await?;
        let runs = build["runs"].as_array().map_or(&[][..], Vec::as_slice);
        let planned = build["state"] != "received";
        let enough = if to_the_end {
            planned && runs.iter().all(|run| run["state"] != "active")
        } else {
            planned || since.elapsed() > PLANNED_WITHIN
        };
        if enough {
            return Ok(build);
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn say(id: &str, build: &Value, runs: &[Value]) {
    for run in runs {
        println!("{}", line(run));
    }
    let reason = text(&build["reason"]);
    match build["state"].as_str() {
        Some("received") => println!("build {id} waits: {reason}"),
        _ if runs.is_empty() => println!("{}: {reason}", text(&build["state"])),
        _ => {}
    }
}

fn exit(build: &Value, runs: &[Value], waited: bool) -> Exit {
    if build["state"] == "failed" {
        return Exit::Error;
    }
    if !waited {
        // Nothing runs, and nothing will.
        return if build["state"] == "ignored" {
            Exit::Failure
        } else {
            Exit::Success
        };
    }
    let worst = runs
        .iter()
        .map(|run| Exit::of_state(&text(&run["state"])))
        .max_by_key(|exit| match exit {
            Exit::Success => 0,
            Exit::Cancelled => 1,
            Exit::Failure => 2,
            _ => 3,
        });
    // Who waits for runs does not call it a success when there are none.
    worst.unwrap_or(Exit::Failure)
}
