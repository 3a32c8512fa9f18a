//! `helios-ci show`

use clap::Args;
use serde_json::Value;

use super::{
    Common, Exit, Outcome,
    client::{Client, ClientError},
    runs::{line, text},
};

#[derive(Debug, Args)]
pub(super) struct ShowArgs {
    /// The id of a run or a job.
    id: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(common: &Common, args: ShowArgs) -> Outcome {
    let client = Client::connect(common).await?;
    let run = client
        .get(&format!("/api/v1/runs/{}", super::runs::encode(&args.id)))
        .await;
    let (run, job) = match run {
        Ok(run) => (Some(run), None),
        Err(ClientError::Refused { status: 404, .. }) => (
            None,
            Some(
                client
                    .get(&format!("/api/v1/jobs/{}", super::runs::encode(&args.id)))
                    .await?,
            ),
        ),
        Err(error) => return Err(error.into()),
    };
    client.close().await;
    match (run, job) {
        (Some(answer), _) | (None, Some(answer)) if args.json => println!("{answer:#}"),
        (Some(answer), _) => show_run(&answer),
        (None, Some(answer)) => show_job(&answer),
        (None, None) => {}
    }
    Ok(Exit::Success)
}

fn show_run(answer: &Value) {
    println!("{}", line(&answer["run"]));
    for diagnostic in answer["diagnostics"].as_array().into_iter().flatten() {
        println!(
            "  {}:{}:{}: {}",
            text(&diagnostic["file"]),
            diagnostic["line"],
            diagnostic["column"],
            text(&diagnostic["message"])
        );
    }
    for attempt in answer["attempts"].as_array().into_iter().flatten() {
        println!("  attempt {}  {}", attempt["number"], text(&attempt["state"]));
        for job in attempt["jobs"].as_array().into_iter().flatten() {
            let reason = job["reason"]
                .as_str()
                .map(|_| format!("  ({})", text(&job["reason"])))
                .unwrap_or_default();
            println!(
                "    {}  {:<9}  {}{reason}",
                text(&job["id"]),
                text(&job["state"]),
                text(&job["name"])
            );
        }
    }
    for report in answer["undelivered"].as_array().into_iter().flatten() {
        println!("  not told to the forge: {}", text(report));
    }
}

fn show_job(job: &Value) {
    println!(
        "{}  {}  {}  run {}",
        text(&job["id"]),
        text(&job["state"]),
        text(&job["name"]),
        text(&job["run"])
    );
    if job["reason"].is_string() {
        println!("  {}", text(&job["reason"]));
    }
    for attempt in job["attempts"].as_array().into_iter().flatten() {
        let cause = attempt["cause"]
            .as_str()
            .map(|_| format!(": {}", text(&attempt["cause"])))
            .unwrap_or_default();
        println!(
            "  try {} on {}  {}{cause}",
            attempt["number"],
            text(&attempt["node"]),
            text(&attempt["state"])
        );
    }
    super::why::show_keep(&job["keep"]);
    for step in job["steps"].as_array().into_iter().flatten() {
        let message = step["message"]
            .as_str()
            .map(|_| format!("  ({})", text(&step["message"])))
            .unwrap_or_default();
        println!(
            "  {:>2}  {:<9}  {}{message}",
            step["index"].as_u64().unwrap_or(0) + 1,
            text(&step["state"]),
            text(&step["name"])
        );
    }
}
