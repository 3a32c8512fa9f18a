//! `helios-ci machine`

use std::collections::{BTreeMap, HashMap};

use clap::{Args, Subcommand};
use miette::{IntoDiagnostic as _, miette};
use serde::{Serialize, de::DeserializeOwned};

use super::runs::encode;
use crate::{
    cli::{
        Common, Exit, Outcome,
        client::{Client, ClientArgs, NOTHING, json_text},
        report,
        table::Table,
        wiring::backend,
    },
    config::Config,
    foreign_text::printable,
    machine::{
        Observed,
        zone::life::plan::{MachinePlan, Wanted, example},
    },
    model::{
        ids::AttemptId,
        illumos::{network::Slot, release::Release},
        names::{Label, MachineName},
    },
    web::api::types::{Keep, KeepBody, Kept, MachineList, Released},
};

/// The attempt of a plan that is nobody's.
const EXAMPLE: &str = "00000000000000000000000000";

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum MachineCommand {
    /// Print what one attempt does to an illumos host, on any system, and do nothing.
    #[command(after_help = "\
Examples:
  helios-ci machine plan --image debian-12
  helios-ci machine plan --image debian-12 --size large --slot 7 --json
  helios-ci machine plan --image debian-12 --release r151058")]
    Plan(PlanArgs),
    /// List this node's machines. As the daemon's user, or root.
    #[command(after_help = "\
Examples:
  helios-ci machine list
  helios-ci machine list --json | jq -r '.[] | select(.state == \"stopped\") | .name'")]
    List {
        #[command(flatten)]
        client: ClientArgs,
        /// Print an array of {name, attempt, state, detail, keep}.
        #[arg(long)]
        json: bool,
    },
    /// Keep a machine after its job, to look into it; asked again, for longer.
    #[command(after_help = "\
The job is reported as ever. The machine counts as busy until its time is over or it is released. Its guest is cut
off from the node; its console is open: `helios-ci console`.

Examples:
  helios-ci machine keep 01k9zk6x0f5t3b8w2q7m4d1c0e
  helios-ci machine keep hci-01k9zk6x0f5t3b8w2q7m4d1c0e --for 2h")]
    Keep {
        #[command(flatten)]
        client: ClientArgs,
        /// The id of a job, or the name of a machine.
        id: String,
        /// For how long: 90s, 30m, 2h, 1d. Otherwise as configured (`keep.default_minutes`).
        #[arg(long = "for", value_parser = seconds, value_name = "TIME")]
        time: Option<u64>,
    },
    /// End a keep: the machine is removed, or goes with its job when that still runs.
    #[command(after_help = "\
Examples:
  helios-ci machine release 01k9zk6x0f5t3b8w2q7m4d1c0e")]
    Release {
        #[command(flatten)]
        client: ClientArgs,
        /// The id of a job, or the name of a machine.
        id: String,
    },
    /// Remove the machine of a job that has ended; one that works is refused.
    #[command(after_help = "\
Examples:
  helios-ci machine destroy hci-01k9zk6x0f5t3b8w2q7m4d1c0e")]
    Destroy {
        #[command(flatten)]
        client: ClientArgs,
        /// The id of a job, or the name of a machine.
        id: String,
    },
}

#[derive(Debug, Args)]
pub(in crate::cli) struct PlanArgs {
    /// The image's label, or an alias of one.
    #[arg(long)]
    image: Label,
    /// A size of the configuration; otherwise the image's own.
    #[arg(long)]
    size: Option<String>,
    /// The version of the image on the host.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    version: u32,
    /// The slot, which names links and addresses.
    #[arg(long, default_value_t = 0)]
    slot: u32,
    /// The attempt's id, which names everything else.
    #[arg(long, default_value = EXAMPLE)]
    attempt: AttemptId,
    /// The release of OmniOS whose brand makes bhyve's options: r151054 (the oldest supported), master ...
    #[arg(long, default_value_t = Release::OLDEST)]
    release: Release,
    /// One JSON object with the keys commands, zonecfg, devices, ignored, seed and teardown.
    #[arg(long)]
    json: bool,
}

pub(in crate::cli) async fn run(common: &Common, command: MachineCommand) -> Outcome {
    match command {
        MachineCommand::Plan(args) => show_plan(&super::config::load(common)?, &args),
        MachineCommand::List { client, json } => list(common, &client, json).await,
        MachineCommand::Keep { client, id, time } => {
            let body = time.map(|for_s| KeepBody { for_s: Some(for_s) });
            let kept: Kept = ask(common, &client, &id, "keep", body.as_ref()).await?;
            let keep = kept.machine.keep;
            let words = keep.as_ref().map(|keep| printable(&keep.words));
            println!("{}  {}", kept.machine.name, words.unwrap_or_default());
            println!("It counts as busy until then.");
            if let Some(line) = keep.and_then(|keep| keep.attach) {
                println!("{}", printable(&line));
            }
            Ok(Exit::Success)
        }
        MachineCommand::Release { client, id } => Ok(removed(&ask(common, &client, &id, "release", NOTHING).await?)),
        MachineCommand::Destroy { client, id } => Ok(removed(&ask(common, &client, &id, "destroy", NOTHING).await?)),
    }
}

async fn ask<B: Serialize, T: DeserializeOwned>(
    common: &Common,
    client: &ClientArgs,
    id: &str,
    what: &str,
    body: Option<&B>,
) -> miette::Result<T> {
    let path = format!("/api/v1/machines/{}/{what}", encode(id));
    Client::with(common, client, async |client| Ok(client.post(&path, body).await?)).await
}

fn removed(answer: &Released) -> Exit {
    println!("{} {}", answer.machine, answer.outcome.text());
    Exit::Success
}

/// `90s`, `30m`, `2h`, `1d` as seconds.
fn seconds(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is no time: write 90s, 30m, 2h or 1d");
    let unit = match text.chars().last() {
        Some('s') => 1,
        Some('m') => 60,
        Some('h') => 3600,
        Some('d') => 86_400,
        _ => return Err(wrong()),
    };
    let number = text.get(..text.len() - 1).unwrap_or_default();
    let digits = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
    let number: u64 = number.parse().ok().filter(|_| digits).ok_or_else(wrong)?;
    number.checked_mul(unit).filter(|n| *n > 0).ok_or_else(wrong)
}

/// What the daemon knows of this node's kept machines, by name.
async fn kept(common: &Common, client: &ClientArgs) -> miette::Result<HashMap<MachineName, Keep>> {
    let list: MachineList = Client::with(common, client, async |client| {
        Ok(client.get("/api/v1/machines").await?)
    })
    .await?;
    let kept = list.machines.into_iter();
    Ok(kept.filter_map(|machine| Some((machine.name, machine.keep?))).collect())
}

/// One row of `machine list --json`.
#[derive(Serialize)]
struct Listed<'a> {
    name: &'a MachineName,
    attempt: AttemptId,
    state: &'static str,
    detail: &'a str,
    keep: Option<&'a Keep>,
}

async fn list(common: &Common, client: &ClientArgs, json: bool) -> Outcome {
    let machines = backend::read_only(&super::config::load(common)?).await?;
    let found = machines.list().await.map_err(report)?;
    let kept = match found.is_empty() {
        true => HashMap::new(),
        false => kept(common, client).await.unwrap_or_else(|error| {
            eprintln!("helios-ci: which of them are kept is not known: {error}");
            HashMap::new()
        }),
    };
    let rows: Vec<_> = found
        .iter()
        .map(|machine| {
            let (state, detail) = match &machine.observed {
                Observed::Absent => ("absent", ""),
                Observed::Prepared => ("prepared", ""),
                Observed::Running => ("running", ""),
                Observed::Stopped(how) => ("stopped", how.as_str()),
            };
            Listed {
                name: &machine.name,
                attempt: machine.name.attempt(),
                state,
                detail,
                keep: kept.get(&machine.name),
            }
        })
        .collect();
    if json {
        println!("{}", serde_json::to_string_pretty(&rows).into_diagnostic()?);
    } else if rows.is_empty() {
        eprintln!("This node has no machines.");
    } else {
        let mut table = Table::new(&["MACHINE", "STATE", "DETAIL"]);
        for row in rows {
            let keep = row.keep.map(|keep| keep.words.as_str()).unwrap_or_default();
            let detail = [keep, row.detail].join(" ");
            table.row([row.name.as_str(), row.state, detail.trim()]);
        }
        print!("{}", table.text());
    }
    Ok(Exit::Success)
}

fn show_plan(config: &Config, args: &PlanArgs) -> Outcome {
    let plan = plan(config, args)?;
    if args.json {
        println!("{}", json(&plan, args.release)?);
    } else {
        print!("{}", plan_text(&plan, args.release));
    }
    Ok(Exit::Success)
}

fn plan(config: &Config, args: &PlanArgs) -> miette::Result<MachinePlan> {
    if args.release < Release::OLDEST {
        return Err(miette!(
            help = format!("{} is the oldest that is supported", Release::OLDEST),
            "what the brand of {} does is not known",
            args.release
        ));
    }
    let (label, image, own) = config.resolve_label(Some(&args.image)).map_err(report)?;
    let size = match &args.size {
        None => own,
        Some(name) => *config.sizes.get(name).ok_or_else(|| {
            let known: Vec<_> = config.sizes.keys().cloned().collect();
            miette!(
                help = format!("possible: {}", known.join(", ")),
                "there is no size `{name}`"
            )
        })?,
    };
    let slot = Slot::new(args.slot).ok_or_else(|| miette!("slot {} is too high: there are 32768", args.slot))?;
    let spec = example(&config.node, &label, MachineName::of(args.attempt), size);
    MachinePlan::new(Wanted {
        spec: &spec,
        image,
        version: args.version,
        slot,
        zone: &config.zone,
    })
    .map_err(report)
}

/// `machine plan --json`
#[derive(Serialize)]
struct PlanJson<'a> {
    commands: Vec<String>,
    zonecfg: String,
    devices: Vec<String>,
    ignored: Vec<String>,
    seed: BTreeMap<&'a str, &'a str>,
    teardown: Vec<String>,
}

fn json(plan: &MachinePlan, release: Release) -> miette::Result<String> {
    let commands: Vec<String> = plan.create().iter().map(|step| step.command.to_string()).collect();
    let teardown: Vec<String> = plan.destroy().iter().map(ToString::to_string).collect();
    json_text(&PlanJson {
        commands,
        zonecfg: plan.config.to_file(),
        devices: plan.devices(release),
        ignored: plan.ignored(release).into_iter().map(|(name, _)| name).collect(),
        seed: plan.seed.iter().map(|(name, text)| (*name, text.as_str())).collect(),
        teardown,
    })
}

fn plan_text(plan: &MachinePlan, release: Release) -> String {
    let mut text = String::from("# create: disk, zone and network side by side, then the rest\n");
    for step in plan.create() {
        text.push_str(&format!("{}\n", step.command));
    }
    text.push_str(&format!(
        "\n# {}\n{}",
        plan.config_file.display(),
        plan.config.to_file()
    ));
    text.push_str(&format!(
        "\n# bhyve's options for them, as the brand of {release} makes them\n"
    ));
    for device in plan.devices(release) {
        text.push_str(&format!("{device}\n"));
    }
    for (name, since) in plan.ignored(release) {
        text.push_str(&format!("# {name} is ignored: the brand knows it from {since} on\n"));
    }
    for (name, content) in &plan.seed {
        text.push_str(&format!("\n# seed: {name}\n{}\n", content.trim_end()));
    }
    text.push_str("\n# destroy\n");
    for command in plan.destroy() {
        text.push_str(&format!("{command}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_number_and_a_unit() {
        for (text, want) in [("90s", 90), ("30m", 1800), ("2h", 7200), ("1d", 86_400)] {
            assert_eq!(seconds(text), Ok(want));
        }
        for text in [
            "",
            "m",
            "30",
            "+3m",
            "-3m",
            "0s",
            "1.5h",
            "3 m",
            "99999999999999999999s",
            "300000000000000d",
            "3ä",
        ] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }
}
