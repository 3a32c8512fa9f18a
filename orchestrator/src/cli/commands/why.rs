//! `helios-ci why`

use std::fmt::Write as _;

use clap::Args;

use super::{runs::encode, show::keep_text};
use crate::{
    cli::{
        Common, Exit, Outcome,
        client::{Client, ClientArgs, json_text},
    },
    foreign_text::printable,
    model::state::JobState,
    web::api::types::Why,
};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  helios-ci why 01k9zk6x0f5t3b8w2q7m4d1c0e")]
pub(in crate::cli) struct WhyArgs {
    #[command(flatten)]
    client: ClientArgs,
    /// The id of a job.
    job: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(in crate::cli) async fn run(common: &Common, args: WhyArgs) -> Outcome {
    let path = format!("/api/v1/jobs/{}/why", encode(&args.job));
    let why: Why = Client::with(common, &args.client, async |client| Ok(client.get(&path).await?)).await?;
    if args.json {
        println!("{}", json_text(&why)?);
    } else {
        print!("{}", text(&why));
    }
    Ok(Exit::Success)
}

fn text(why: &Why) -> String {
    let mut text = format!("{}\n", why.state);
    if let Some(reason) = &why.reason {
        let _ = writeln!(text, "{}", printable(reason));
    }
    if !why.waiting_for.is_empty() {
        let _ = writeln!(text, "waits for: {}", printable(&why.waiting_for.join(", ")));
    }
    text.push_str(&keep_text(why.keep.as_ref()));
    if why.state == JobState::Queued {
        let _ = writeln!(
            text,
            "position {} in its queue; {} of its kind are running",
            why.position, why.class_running
        );
        if let Some(refused) = &why.refused_here {
            let _ = writeln!(text, "node {}: {}", why.node, printable(refused));
        }
    }
    text
}
