//! `helios-ci cancel` and `helios-ci rerun`

use clap::Args;

use super::runs::encode;
use crate::{
    cli::{
        Common, Exit, Outcome,
        client::{Client, ClientArgs, ClientError, NOTHING},
    },
    model::ids::{JobId, RunId},
    web::api::types::{Cancelled, Rerun, RerunBody, Which},
};

#[derive(Debug, Args)]
#[command(after_help = "\
Steps with `if: always()` still run. Asked for a second time, the job is ended at once.

Examples:
  helios-ci cancel 01k9zk6x0f5t3b8w2q7m4d1c0e")]
pub(in crate::cli) struct CancelArgs {
    #[command(flatten)]
    client: ClientArgs,
    /// The id of a run or a job.
    id: String,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  helios-ci rerun 01k9zk6x0f5t3b8w2q7m4d1c0e
  helios-ci rerun --failed 01k9zk6x0f5t3b8w2q7m4d1c0e")]
pub(in crate::cli) struct RerunArgs {
    #[command(flatten)]
    client: ClientArgs,
    /// The id of a run.
    id: String,
    /// Only what did not succeed; results of the others are carried over.
    #[arg(long)]
    failed: bool,
}

pub(in crate::cli) async fn cancel(common: &Common, args: CancelArgs) -> Outcome {
    let id = encode(&args.id);
    let outcome = Client::with(common, &args.client, async |client| {
        let of_run = client
            .post::<_, Cancelled<RunId>>(&format!("/api/v1/runs/{id}/cancel"), NOTHING)
            .await;
        match of_run {
            Ok(answer) => Ok(answer.outcome),
            Err(ClientError::Refused { status: 404, .. }) => {
                let path = format!("/api/v1/jobs/{id}/cancel");
                Ok(client.post::<_, Cancelled<JobId>>(&path, NOTHING).await?.outcome)
            }
            Err(error) => Err(error.into()),
        }
    })
    .await?;
    println!("{}", outcome.text());
    Ok(Exit::Success)
}

pub(in crate::cli) async fn rerun(common: &Common, args: RerunArgs) -> Outcome {
    let which = if args.failed { Which::Failed } else { Which::All };
    let path = format!("/api/v1/runs/{}/rerun", encode(&args.id));
    let body = RerunBody { which: Some(which) };
    let started: Rerun = Client::with(common, &args.client, async |client| {
        Ok(client.post(&path, Some(&body)).await?)
    })
    .await?;
    println!("attempt {} of run {}", started.attempt, started.id);
    Ok(Exit::Success)
}
