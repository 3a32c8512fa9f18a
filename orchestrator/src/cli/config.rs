//! `helios-ci config`

use clap::Subcommand;

use super::{Common, Exit, Outcome};
use crate::config::{Config, LoadOptions};

#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Read the configuration and everything it refers to, and say what is wrong.
    #[command(after_help = "Example:\n  helios-ci --config /etc/helios-ci/config.yaml config check")]
    Check,
    /// Print what is in effect, defaults included, secrets never.
    #[command(after_help = "Example:\n  helios-ci config show")]
    Show,
}

pub(super) fn run(common: &Common, command: &ConfigCommand) -> Outcome {
    let config = load(common)?;
    match command {
        ConfigCommand::Check => println!("{}: ok", common.config.display()),
        ConfigCommand::Show => print!("{}", config.to_shown_yaml()),
    }
    Ok(Exit::Success)
}

/// The configuration of the common options; warnings go to standard error.
pub(super) fn load(common: &Common) -> miette::Result<Config> {
    let loaded = Config::load(
        &common.config,
        LoadOptions {
            dev_env_secrets: common.dev_env_secrets,
        },
    )?;
    for warning in &loaded.warnings {
        eprintln!("{warning}");
    }
    Ok(loaded.config)
}
