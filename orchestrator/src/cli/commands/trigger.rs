//! `helios-ci trigger`

use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};

use super::runs::table;
use crate::{
    cli::{
        Common, Exit, Outcome,
        client::{Client, ClientArgs, json_text},
    },
    foreign_text::printable,
    model::{
        ids::TriggerId,
        state::{IntakeState, RunState},
    },
    web::api::types::{AskedEvent, Build, BuildCreated, CreateBuild},
};

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  helios-ci trigger codeberg ada/engine main --wait\n  helios-ci trigger codeberg ada/engine v1.2 --workflow release.yml"
)]
pub(in crate::cli) struct TriggerArgs {
    #[command(flatten)]
    client: ClientArgs,
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
    #[arg(long, value_enum, default_value_t = EventArg::Push)]
    event: EventArg,
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
enum EventArg {
    /// As if the ref had been pushed.
    Push,
    /// As if started by hand at the forge.
    #[value(name = "workflow_dispatch")]
    WorkflowDispatch,
}

impl From<EventArg> for AskedEvent {
    fn from(event: EventArg) -> Self {
        match event {
            EventArg::Push => Self::Push,
            EventArg::WorkflowDispatch => Self::WorkflowDispatch,
        }
    }
}

/// How often a build that is waited for is asked about.
const POLL: Duration = Duration::from_millis(500);
/// How long a build is waited for to be planned when nobody waits for its end: a forge that is away may take for ever.
const PLANNED_WITHIN: Duration = Duration::from_secs(60);

pub(in crate::cli) async fn run(common: &Common, args: TriggerArgs) -> Outcome {
    let wanted = CreateBuild {
        connection: args.connection,
        repository: args.repository,
        ref_name: args.r#ref,
        commit: args.commit,
        workflow: args.workflow,
        event: args.event.into(),
    };
    let build = Client::with(common, &args.client, async |client| {
        let created: BuildCreated = client.post("/api/v1/builds", Some(&wanted)).await?;
        follow(client, created.id, args.wait).await
    })
    .await?;
    if args.json {
        println!("{}", json_text(&build)?);
    } else {
        print_build(&build);
    }
    Ok(exit(&build, args.wait))
}

/// The build once it was planned, or once its runs have ended.
async fn follow(client: &Client, id: TriggerId, to_the_end: bool) -> miette::Result<Build> {
    let since = Instant::now();
    let path = format!("/api/v1/builds/{id}");
    loop {
        let build: Build = client.get(&path).await?;
        let planned = build.state != IntakeState::Received;
        let enough = if to_the_end {
            planned && build.runs.iter().all(|run| run.state != RunState::Active)
        } else {
            planned || since.elapsed() > PLANNED_WITHIN
        };
        if enough {
            return Ok(build);
        }
        tokio::time::sleep(POLL).await;
    }
}

fn print_build(build: &Build) {
    let reason = printable(build.reason.as_deref().unwrap_or("-"));
    match build.state {
        IntakeState::Received => println!("build {} waits: {reason}", build.id),
        state if build.runs.is_empty() => println!("{state}: {reason}"),
        _ => print!("{}", table(&build.runs)),
    }
}

fn exit(build: &Build, waited: bool) -> Exit {
    if build.state == IntakeState::Failed {
        return Exit::Error;
    }
    if !waited {
        // Nothing runs, and nothing will.
        return match build.state {
            IntakeState::Ignored => Exit::Failure,
            _ => Exit::Success,
        };
    }
    let worst = build
        .runs
        .iter()
        .filter(|run| run.state != RunState::Skipped)
        .map(|run| Exit::of_run(run.state))
        .max_by_key(|exit| match exit {
            Exit::Success => 0,
            Exit::Cancelled => 1,
            Exit::Failure => 2,
            _ => 3,
        });
    // Who waits for runs does not call it a success when there are none, or when all that they would do was skipped.
    worst.unwrap_or(Exit::Failure)
}
