//! `helios-ci trigger`

use std::time::Duration;

use clap::Args;
use miette::IntoDiagnostic as _;
use serde_json::Value;

use super::{
    Common, Exit, Outcome,
    client::{self, Client, ClientArgs},
    runs::table,
    table::printable,
};
use crate::{
    model::state::{IntakeState, RunState},
    web::api::types::{Build, BuildCreated, CreateBuild},
};

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  helios-ci trigger codeberg ada/engine main --wait")]
pub(super) struct TriggerArgs {
    #[command(flatten)]
    client: ClientArgs,
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
    let client = Client::connect(common, &args.client).await?;
    let wanted = CreateBuild {
        connection: args.connection,
        repository: args.repository,
        ref_name: args.r#ref,
        commit: args.commit,
    };
    let created: BuildCreated = client.post("/api/v1/builds", Some(&wanted)).await?;
    if !args.wait {
        client.close().await;
        if args.json {
            println!("{}", serde_json::to_string_pretty(&created).into_diagnostic()?);
        } else {
            println!("build {}", created.id);
        }
        return Ok(Exit::Success);
    }
    let path = format!("/api/v1/builds/{}", created.id);
    let (answer, build) = loop {
        let answer: Value = client.get(&path).await?;
        let build: Build = client::read(&path, answer.clone())?;
        let planned = build.state != IntakeState::Received;
        if planned && build.runs.iter().all(|run| run.state != RunState::Active) {
            break (answer, build);
        }
        tokio::time::sleep(LOOK).await;
    };
    client.close().await;
    if args.json {
        println!("{answer:#}");
    } else if build.runs.is_empty() {
        println!("{}: {}", build.state, printable(build.reason.as_deref().unwrap_or("-")));
    } else {
        print!("{}", table(&build.runs));
    }
    if build.state == IntakeState::Failed {
        return Ok(Exit::Error);
    }
    let worst = build
        .runs
        .iter()
        .filter(|run| run.state != RunState::Skipped)
        .map(|run| Exit::of_state(run.state.as_str()))
        .max_by_key(|exit| match exit {
            Exit::Success => 0,
            Exit::Cancelled => 1,
            Exit::Failure => 2,
            _ => 3,
        });
    // Who waits for runs does not call it a success when there are none, or when all that they would do was skipped.
    Ok(worst.unwrap_or(Exit::Failure))
}
