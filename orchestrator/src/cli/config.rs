//! `helios-ci config`

mod answers;
mod init;
mod install;
mod question;

use clap::Subcommand;

use self::init::InitArgs;
use super::{Common, Exit, Outcome, data_dir};
use crate::config::{Config, LoadOptions};

#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Ask for forge, repository and image, and write the configuration with its secrets.
    Init(Box<InitArgs>),
    /// Read the configuration and everything it refers to, and say what is wrong.
    Check,
    /// Print what is in effect, defaults included, secrets never.
    Show,
}

pub(super) fn run(common: &Common, command: ConfigCommand) -> Outcome {
    match command {
        ConfigCommand::Init(args) => init::run(common, *args)?,
        ConfigCommand::Check => {
            let config = load(common)?;
            data_dir::check(&config.data_dir)?;
            println!("{}: ok", common.config.display());
        }
        ConfigCommand::Show => print!("{}", load(common)?.to_shown_yaml()),
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
