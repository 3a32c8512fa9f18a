//! `helios-ci deliveries` and `helios-ci catch-up`

use clap::Args;
use serde_json::Value;

use super::{
    Common, Exit, Outcome,
    client::Client,
    runs::{encode, text},
};

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  helios-ci deliveries --repository ada/engine --state failed\n  helios-ci deliveries --missed"
)]
pub(super) struct DeliveriesArgs {
    /// List the branches and tags at the forges that were pushed without a run, as of the last comparison.
    #[arg(long, conflicts_with_all = ["connection", "repository", "state", "limit"])]
    missed: bool,
    /// Only through this connection.
    #[arg(long)]
    connection: Option<String>,
    /// Only about this repository (`owner/name`).
    #[arg(long)]
    repository: Option<String>,
    /// Only in this state: received, planned, ignored or failed.
    #[arg(long)]
    state: Option<String>,
    /// How many at most.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100))]
    limit: u32,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  helios-ci catch-up\n\nEnds with 1 when a connection does not work.")]
pub(super) struct CatchUpArgs {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(common: &Common, args: DeliveriesArgs) -> Outcome {
    let client = Client::connect(common).await?;
    let path = if args.missed {
        "/api/v1/missed".to_owned()
    } else {
        let mut path = format!("/api/v1/deliveries?limit={}", args.limit);
        for (name, value) in [
            ("connection", &args.connection),
            ("repository", &args.repository),
            ("state", &args.state),
        ] {
            if let Some(value) = value {
                path.push_str(&format!("&{name}={}", encode(value)));
            }
        }
        path
    };
    let answer = client.get(&path).await?;
    client.close().await;
    if args.json {
        println!("{answer:#}");
    } else if args.missed {
        print_missed(&answer);
    } else {
        for delivery in answer["deliveries"].as_array().into_iter().flatten() {
            println!("{}", line(delivery));
        }
    }
    Ok(Exit::Success)
}

pub(super) async fn catch_up(common: &Common, args: CatchUpArgs) -> Outcome {
    let client = Client::connect(common).await?;
    let answer = client.post("/api/v1/catch-up", None).await?;
    client.close().await;
    let connections = answer["connections"].as_array().map_or(&[][..], Vec::as_slice);
    let works = connections.iter().all(|connection| connection["broken"].is_null());
    let exit = if works { Exit::Success } else { Exit::Failure };
    if args.json {
        println!("{answer:#}");
        return Ok(exit);
    }
    for connection in connections {
        let name = text(&connection["connection"]);
        if connection["broken"].is_null() {
            println!(
                "{name}: {} repositories compared, {} pushes delivered again",
                connection["repositories"], connection["delivered_again"]
            );
        } else {
            println!("{name}: does not work: {}", text(&connection["broken"]));
        }
    }
    print_missed(&answer);
    Ok(exit)
}

/// When, what about what, and what came of it. Foreign text is freed of control characters.
fn line(delivery: &Value) -> String {
    let reference = text(&delivery["ref"]);
    let commit: String = text(&delivery["commit"]).chars().take(10).collect();
    format!(
        "{}  {:<8}  {} {} {} {} {}  {}",
        text(&delivery["received"]),
        text(&delivery["state"]),
        text(&delivery["connection"]),
        text(&delivery["event"]),
        text(&delivery["repository"]),
        reference.trim_start_matches("refs/heads/"),
        commit,
        text(&delivery["outcome"]),
    )
}

fn print_missed(answer: &Value) {
    let missed = answer["missed"].as_array().map_or(&[][..], Vec::as_slice);
    for compared in answer["compared"].as_array().into_iter().flatten() {
        if !compared["reason"].is_null() {
            println!(
                "{} {} was not compared: {}",
                text(&compared["connection"]),
                text(&compared["repository"]),
                text(&compared["reason"])
            );
        }
    }
    if missed.is_empty() {
        println!("nothing was missed, as far as the forges were compared");
        return;
    }
    println!("no run was planned for what these point at:");
    for row in missed {
        let commit: String = text(&row["commit"]).chars().take(10).collect();
        println!(
            "  {commit}  helios-ci trigger {} {} {}",
            text(&row["connection"]),
            text(&row["repository"]),
            text(&row["ref"])
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_to_a_terminal_holds_no_escape() {
        let delivery = serde_json::json!({"received": "x", "state": "failed", "outcome": "a\u{1b}]0;evil\u{7}"});
        assert!(!line(&delivery).contains(['\u{1b}', '\u{7}']));
    }
}
