//! `helios-ci machine`

use clap::{Args, Subcommand};
use miette::miette;

use super::{Common, Exit, Outcome, backend, report};
use crate::{
    config::Config,
    machine::{
        Observed,
        zone::plan::{MachinePlan, Wanted, example},
    },
    model::{
        ids::AttemptId,
        illumos::network::Slot,
        names::{Label, MachineName},
    },
};

/// The attempt of a plan that is nobody's.
const EXAMPLE: &str = "00000000000000000000000000";

#[derive(Debug, Subcommand)]
pub(super) enum MachineCommand {
    /// Print what one attempt does to an illumos host, on any system, and do nothing.
    #[command(after_help = "\
Examples:
  helios-ci machine plan --image debian-12
  helios-ci machine plan --image debian-12 --size large --slot 7 --json")]
    Plan(PlanArgs),
    /// List this node's machines. As the daemon's user, or root.
    List {
        /// Print an array of {name, attempt, state, detail}.
        #[arg(long)]
        json: bool,
    },
    /// Print what a machine's console has said; with -f go on until the machine has stopped.
    #[command(after_help = "\
What is printed is the guest's word: control characters but the line's end are left out.

Examples:
  helios-ci machine list
  helios-ci machine console -f hci-01k9zk6x0f5t3b8w2q7m4d1c0e")]
    Console {
        /// The machine, as `machine list` names it.
        name: MachineName,
        /// Go on.
        #[arg(short, long)]
        follow: bool,
    },
}

#[derive(Debug, Args)]
pub(super) struct PlanArgs {
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
    /// One JSON object with the keys commands, zonecfg, devices, seed and teardown.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(common: &Common, command: MachineCommand) -> Outcome {
    let config = super::config::load(common)?;
    match command {
        MachineCommand::Plan(args) => show_plan(&config, &args),
        MachineCommand::List { json } => list(&config, json).await,
        MachineCommand::Console { name, follow } => console(&config, &name, follow).await,
    }
}

async fn list(config: &Config, json: bool) -> Outcome {
    let machines = backend::to_look_at(config).await?;
    let found = machines.list().await.map_err(report)?;
    let word = |observed: &Observed| match observed {
        Observed::Absent => ("absent", String::new()),
        Observed::Prepared => ("prepared", String::new()),
        Observed::Running => ("running", String::new()),
        Observed::Stopped(how) => ("stopped", how.clone()),
    };
    if json {
        let rows: Vec<_> = found
            .iter()
            .map(|machine| {
                let (state, detail) = word(&machine.observed);
                serde_json::json!({
                    "name": machine.name.as_str(), "attempt": machine.name.attempt(), "state": state, "detail": detail,
                })
            })
            .collect();
        println!("{:#}", serde_json::Value::from(rows));
        return Ok(Exit::Success);
    }
    for machine in found {
        let (state, detail) = word(&machine.observed);
        println!("{}  {state:<9} {}", machine.name, plain(&detail));
    }
    Ok(Exit::Success)
}

/// A guest's words, for a terminal that must not obey them.
fn plain(text: &str) -> String {
    text.chars().filter(|c| *c == '\n' || !c.is_control()).collect()
}

async fn console(config: &Config, name: &MachineName, follow: bool) -> Outcome {
    let machines = backend::to_look_at(config).await?;
    let mut at = 0;
    loop {
        // Looked at before the reading, so that a machine's last words are read after its end is known.
        let running = machines.observe(name).await.map_err(report)? == Observed::Running;
        loop {
            let read = machines.console(name, at).await.map_err(report)?;
            if read.bytes.is_empty() {
                break;
            }
            at = read.next;
            print!("{}", plain(&String::from_utf8_lossy(&read.bytes)));
        }
        if !follow || !running {
            return Ok(Exit::Success);
        }
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    }
}

fn show_plan(config: &Config, args: &PlanArgs) -> Outcome {
    let plan = plan(config, args)?;
    if args.json {
        println!("{}", json(&plan));
    } else {
        print!("{}", text(&plan));
    }
    Ok(Exit::Success)
}

fn plan(config: &Config, args: &PlanArgs) -> miette::Result<MachinePlan> {
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

fn json(plan: &MachinePlan) -> String {
    let commands: Vec<String> = plan.create().iter().map(|step| step.command.to_string()).collect();
    let teardown: Vec<String> = plan.destroy().iter().map(ToString::to_string).collect();
    let seed: serde_json::Map<String, serde_json::Value> = plan
        .seed
        .iter()
        .map(|(name, text)| ((*name).to_owned(), text.as_str().into()))
        .collect();
    let whole = serde_json::json!({
        "commands": commands,
        "zonecfg": plan.config.to_file(),
        "devices": plan.devices(),
        "seed": seed,
        "teardown": teardown,
    });
    format!("{whole:#}")
}

fn text(plan: &MachinePlan) -> String {
    let mut text = String::from("# create: disk, zone and network side by side, then the rest\n");
    for step in plan.create() {
        text.push_str(&format!("{}\n", step.command));
    }
    text.push_str(&format!(
        "\n# {}\n{}",
        plan.config_file.display(),
        plan.config.to_file()
    ));
    text.push_str("\n# bhyve's options for them\n");
    for device in plan.devices() {
        text.push_str(&format!("{device}\n"));
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
