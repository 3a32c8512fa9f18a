//! `helios-ci setup`

use clap::Args;
use miette::miette;

use crate::{
    cli::{Common, Exit, Outcome, report},
    config::Backend,
    machine::zone::{command::dispadmin, setup},
};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  helios-ci setup          shows what it would do, and does nothing
  helios-ci setup --yes    does it; safe to repeat")]
pub(in crate::cli) struct SetupArgs {
    /// Do what is shown.
    #[arg(long)]
    yes: bool,
}

pub(in crate::cli) fn run(common: &Common, args: &SetupArgs) -> Outcome {
    let config = super::config::load(common)?;
    if config.backend != Backend::Zone {
        return Err(miette!(
            help = "`helios-ci doctor` says what this node needs",
            "only a host with `backend: zone` has anything to set up"
        ));
    }
    let acts = setup::missing(&config.node, &config.zone).map_err(report)?;
    if acts.is_empty() {
        println!("Nothing to do: datasets and filter rules are there.");
    }
    for act in &acts {
        println!("{act}");
        if args.yes {
            setup::perform(act).map_err(report)?;
        }
    }
    if !acts.is_empty() && !args.yes {
        println!("\nNothing was done. Repeat it with --yes.");
    }
    // The host's own, so it is left to its administrator.
    if !dispadmin::default_class()
        .run_blocking()
        .is_ok_and(|output| dispadmin::is_fair(&output))
    {
        println!(
            "\nFSS is not the host's default scheduling class, so each boot of a machine warns: {}",
            dispadmin::ADVICE
        );
    }
    Ok(Exit::Success)
}
