//! `helios-ci why`

use clap::Args;
use serde_json::Value;

use super::{
    Common, Exit, Outcome,
    client::Client,
    runs::{encode, text},
};

#[derive(Debug, Args)]
pub(super) struct WhyArgs {
    /// The id of a job.
    job: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// The machine of the newest try, when it is kept or is to be.
pub(super) fn show_keep(keep: &Value) {
    if keep.is_object() {
        println!("machine {}: {}", text(&keep["machine"]), text(&keep["words"]));
        if keep["attach"].is_string() {
            println!("  {}", text(&keep["attach"]));
        }
    }
}

pub(super) async fn run(common: &Common, args: WhyArgs) -> Outcome {
    let client = Client::connect(common).await?;
    let answer = client.get(&format!("/api/v1/jobs/{}/why", encode(&args.job))).await?;
    client.close().await;
    if args.json {
        println!("{answer:#}");
        return Ok(Exit::Success);
    }
    println!("{}", text(&answer["state"]));
    if answer["reason"].is_string() {
        println!("{}", text(&answer["reason"]));
    }
    let needs: Vec<String> = answer["waiting_for"]
        .as_array()
        .into_iter()
        .flatten()
        .map(text)
        .collect();
    if !needs.is_empty() {
        println!("waits for: {}", needs.join(", "));
    }
    show_keep(&answer["keep"]);
    if answer["state"] == "queued" {
        println!(
            "position {} in its queue; {} of its kind are running",
            answer["position"], answer["class_running"]
        );
        if answer["refused_here"].is_string() {
            println!("node {}: {}", text(&answer["node"]), text(&answer["refused_here"]));
        }
    }
    Ok(Exit::Success)
}
