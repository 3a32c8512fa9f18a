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
//! - Before each part and behind the last the machine is watched for a second. When others use more of it than
//!   [`load::BOUND`], this waits, and refuses in the end: what is left is not measured, and what the part before said does
//!   not count, as it may have been disturbed. `--busy` measures all the same.
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
mod jobs;
mod latency;
mod load;
mod process;
mod streams;
mod syscalls;
mod table;

use std::{path::PathBuf, process::ExitCode, time::Instant};

use table::Table;

/// What can be measured alone, in the order in which all of it is.
const PARTS: [&str; 12] = [
    "latency", "syncs", "streams", "cli", "flood", "jobs", "idle", "webhooks", "branches", "reports", "outage", "guest",
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
        "jobs" => jobs::rates(table).await,
        "idle" => idle::costs(table).await,
        "webhooks" => forge::webhooks(table).await,
        "branches" => forge::branches(table).await,
        "reports" => forge::reports(table).await,
        "outage" => forge::outage(table).await,
        _ => guest::emulated(table).await,
    }
}

/// Measures part after part while nobody else works here. What is in the table then counts.
///
/// # Errors
/// Which parts were refused, and why.
async fn measure_all(options: &Options, table: &mut Table) -> Result<(), String> {
    let refused = |parts: &[&str], others: f64| {
        format!(
            "refused: {}; others use {:.0} % of a processor and {:.0} are allowed; --busy measures all the same",
            parts.join(", "),
            others * 100.0,
            load::BOUND * 100.0
        )
    };
    let others = load::wait_for_quiet(options.busy).map_err(|others| refused(&options.parts, others))?;
    table.others = others;
    for (number, part) in options.parts.iter().enumerate() {
        let (begun, rows) = (Instant::now(), table.len());
        measure(part, table).await;
        eprintln!("{part}: {:.0} s", begun.elapsed().as_secs_f64());
        match load::wait_for_quiet(options.busy) {
            Ok(others) => table.others = table.others.max(others),
            Err(others) => {
                table.truncate(rows);
                return Err(refused(&options.parts[number..], others));
            }
        }
    }
    Ok(())
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
    let all_measured = measure_all(&options, &mut table).await;
    print!("{table}");
    eprintln!("{:.0} s in all", begun.elapsed().as_secs_f64());
    let written = options.into.map_or(Ok(()), |file| {
        let written = table.write_into(&file);
        written.map_err(|error| format!("{}: {error}", file.display()))
    });
    let mut code = ExitCode::SUCCESS;
    for wrong in [all_measured.err(), written.err()].into_iter().flatten() {
        eprintln!("{wrong}");
        code = ExitCode::FAILURE;
    }
    code
}
