//! The whole way, measured on a real daemon with real agents: how soon the first line is there and seen, how fast a flood
//! becomes durable and many jobs are done, what an idle daemon costs, how fast forges are answered and told. It never
//! fails for being slow.
//!
//! ```text
//!  cargo bench --workspace --bench daemon [-- PART...] [--busy] [--into FILE]
//! ```
//!
//! - A figure stands beside its goal, and beside a floor or a comparison of the same run, measured in turn with it: ratios
//!   travel between machines, numbers do not.
//! - Before each part the machine is watched for a second. When others use more of it than [`load::BOUND`], this waits,
//!   and refuses in the end; `--busy` measures all the same.
//! - The table is Markdown. `--into` exchanges the rows of a document that were measured, and adds those it lacks.

#![allow(
    clippy::disallowed_methods,
    reason = "a benchmark waits and starts programs as a person would"
)]

#[path = "../../tests/support/mod.rs"]
mod support;

mod api;
mod backlog;
mod command_line;
mod flood;
mod forge;
mod guest;
mod idle;
mod latency;
mod load;
mod process;
mod queue;
mod streams;
mod syscalls;
mod table;

use std::{path::PathBuf, process::ExitCode, time::Instant};

use table::Table;

/// What can be measured alone, in the order in which all of it is.
const PARTS: [&str; 12] = [
    "latency", "syncs", "streams", "cli", "flood", "queue", "idle", "webhooks", "branches", "reports", "outage",
    "guest",
];

/// What the command line says.
struct Options {
    parts: Vec<&'static str>,
    busy: bool,
    into: Option<PathBuf>,
}

fn options() -> Result<Options, String> {
    let mut options = Options {
        parts: Vec::new(),
        busy: false,
        into: None,
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            // Cargo says so to every benchmark.
            "--bench" => {}
            "--busy" => options.busy = true,
            "--into" => options.into = Some(arguments.next().ok_or("--into needs a file")?.into()),
            name => match PARTS.iter().find(|part| **part == name) {
                Some(part) => options.parts.push(part),
                None => return Err(format!("there is no part `{name}`; there are {}", PARTS.join(", "))),
            },
        }
    }
    if options.parts.is_empty() {
        options.parts = PARTS.to_vec();
    }
    Ok(options)
}

async fn measure(part: &str, table: &mut Table) {
    match part {
        "latency" => latency::process(table).await,
        "syncs" => syscalls::counts(table).await,
        "streams" => streams::opened_in_the_queue(table).await,
        "cli" => command_line::runs(table).await,
        "flood" => flood::process(table).await,
        "queue" => queue::rates(table).await,
        "idle" => idle::costs(table).await,
        "webhooks" => forge::webhooks(table).await,
        "branches" => forge::branches(table).await,
        "reports" => forge::reports(table).await,
        "outage" => forge::outage(table).await,
        _ => guest::emulated(table).await,
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let options = match options() {
        Ok(options) => options,
        Err(wrong) => {
            eprintln!("{wrong}");
            return ExitCode::from(2);
        }
    };
    let mut table = Table::default();
    let begun = Instant::now();
    for part in options.parts {
        match load::wait_for_quiet(options.busy) {
            Ok(others) => table.others = table.others.max(others),
            Err(others) => {
                eprintln!(
                    "others use {:.0} % of a processor and {:.0} are allowed; --busy measures all the same",
                    others * 100.0,
                    load::BOUND * 100.0
                );
                return ExitCode::FAILURE;
            }
        }
        let begun = Instant::now();
        measure(part, &mut table).await;
        eprintln!("{part}: {:.0} s", begun.elapsed().as_secs_f64());
    }
    print!("{table}");
    eprintln!("{:.0} s in all", begun.elapsed().as_secs_f64());
    match options.into.map(|file| table.write_into(&file)) {
        Some(Err(error)) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
        Some(Ok(())) | None => ExitCode::SUCCESS,
    }
}
