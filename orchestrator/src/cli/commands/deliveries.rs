//! `helios-ci deliveries` and `helios-ci catch-up`

use clap::Args;

use super::runs::encode;
use crate::{
    cli::{
        Common, Exit, Outcome,
        client::{Client, ClientArgs, NOTHING, json_text},
        table::{Table, moment},
    },
    foreign_text::printable,
    web::api::types::{CatchUp, DeliveryList, MissedList},
};

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  helios-ci deliveries --repository ada/engine --state failed\n  helios-ci deliveries --missed"
)]
pub(in crate::cli) struct DeliveriesArgs {
    #[command(flatten)]
    client: ClientArgs,
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
#[command(after_help = "Ends with 1 when a connection does not work.\n\nExample:\n  helios-ci catch-up")]
pub(in crate::cli) struct CatchUpArgs {
    #[command(flatten)]
    client: ClientArgs,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(in crate::cli) async fn run(common: &Common, args: DeliveriesArgs) -> Outcome {
    if args.missed {
        let path = "/api/v1/missed";
        let list: MissedList = Client::with(common, &args.client, async |client| Ok(client.get(path).await?)).await?;
        match args.json {
            true => println!("{}", json_text(&list)?),
            false => print_missed(&list),
        }
        return Ok(Exit::Success);
    }
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
    let list: DeliveryList = Client::with(common, &args.client, async |client| Ok(client.get(&path).await?)).await?;
    match args.json {
        true => println!("{}", json_text(&list)?),
        false => print!("{}", deliveries_text(&list)),
    }
    Ok(Exit::Success)
}

pub(in crate::cli) async fn catch_up(common: &Common, args: CatchUpArgs) -> Outcome {
    let done: CatchUp = Client::with(common, &args.client, async |client| {
        Ok(client.post("/api/v1/catch-up", NOTHING).await?)
    })
    .await?;
    let works = done.connections.iter().all(|connection| connection.broken.is_none());
    let exit = if works { Exit::Success } else { Exit::Failure };
    if args.json {
        println!("{}", json_text(&done)?);
        return Ok(exit);
    }
    for connection in &done.connections {
        let name = &connection.connection;
        match &connection.broken {
            Some(reason) => println!("{name}: does not work: {}", printable(reason)),
            None => println!(
                "{name}: {} repositories compared, {} pushes delivered again",
                connection.repositories, connection.delivered_again
            ),
        }
    }
    print_missed(&done.missed);
    Ok(exit)
}

/// When, what about what, and what came of it.
fn deliveries_text(list: &DeliveryList) -> String {
    if list.deliveries.is_empty() {
        return "There are no such deliveries.\n".to_owned();
    }
    let mut table = Table::new(&[
        "RECEIVED",
        "STATE",
        "CONNECTION",
        "EVENT",
        "REPOSITORY",
        "REF",
        "COMMIT",
        "OUTCOME",
    ]);
    for delivery in &list.deliveries {
        table.row([
            &moment(&delivery.received),
            delivery.state.as_str(),
            delivery.connection.as_str(),
            &delivery.event,
            delivery.repository.as_ref().map_or("-", |path| path.as_str()),
            delivery.ref_name.as_ref().map_or("-", |name| name.short()),
            delivery.commit.as_ref().map_or("-", |commit| commit.short()),
            &delivery.outcome,
        ]);
    }
    table.text()
}

fn print_missed(list: &MissedList) {
    for compared in &list.compared {
        if let Some(reason) = &compared.reason {
            println!(
                "{} {} was not compared: {}",
                compared.connection,
                compared.repository,
                printable(reason)
            );
        }
    }
    if list.missed.is_empty() {
        println!("nothing was missed, as far as the forges were compared");
        return;
    }
    println!("no run was planned for what these point at:");
    for row in &list.missed {
        println!(
            "  {}  helios-ci trigger {} {} {}",
            row.commit.short(),
            row.connection,
            row.repository,
            row.ref_name
        );
    }
}
