//! `helios-ci cancel` and `helios-ci rerun`

use clap::Args;
use serde_json::json;

use super::{
    Common, Exit, Outcome,
    client::{Client, ClientError},
    runs::{encode, text},
};

#[derive(Debug, Args)]
pub(super) struct CancelArgs {
    /// The id of a run or a job.
    id: String,
}

#[derive(Debug, Args)]
pub(super) struct RerunArgs {
    /// The id of a run.
    id: String,
    /// Only what did not succeed; results of the others are carried over.
    #[arg(long)]
    failed: bool,
}

pub(super) async fn cancel(common: &Common, args: CancelArgs) -> Outcome {
    let client = Client::connect(common).await?;
    let id = encode(&args.id);
    let answer = match client.post(&format!("/api/v1/runs/{id}/cancel"), None).await {
        Err(ClientError::Refused { status: 404, .. }) => client.post(&format!("/api/v1/jobs/{id}/cancel"), None).await,
        other => other,
    };
    let answer = answer?;
    client.close().await;
    println!(
        "{}",
        answer["outcome"]
            .as_str()
            .map_or_else(|| answer["outcome"].to_string(), |_| text(&answer["outcome"]))
    );
    Ok(Exit::Success)
}

pub(super) async fn rerun(common: &Common, args: RerunArgs) -> Outcome {
    let client = Client::connect(common).await?;
    let body = json!({"which": if args.failed { "failed" } else { "all" }});
    let answer = client
        .post(&format!("/api/v1/runs/{}/rerun", encode(&args.id)), Some(body))
        .await?;
    client.close().await;
    println!("attempt {} of run {}", answer["attempt"], text(&answer["id"]));
    Ok(Exit::Success)
}
