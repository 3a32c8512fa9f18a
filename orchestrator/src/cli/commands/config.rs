//! `helios-ci config`

mod answers;
mod init;
mod install;
mod question;

use clap::Subcommand;

use self::init::InitArgs;
use crate::{
    cli::{Common, Exit, Outcome, wiring::data_dir},
    config::{Config, ConfigError, LoadOptions, Loaded},
};

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum ConfigCommand {
    /// Ask for forge, repository and image, and write the configuration with its secrets.
    Init(Box<InitArgs>),
    /// Read the configuration and everything it refers to, and say what is wrong.
    #[command(after_help = "Example:\n  helios-ci --config /etc/helios-ci/config.yaml config check")]
    Check,
    /// Print what is in effect, defaults included, secrets never.
    #[command(after_help = "Example:\n  helios-ci config show")]
    Show,
}

pub(in crate::cli) fn run(common: &Common, command: ConfigCommand) -> Outcome {
    match command {
        ConfigCommand::Init(args) => init::run(common, *args)?,
        ConfigCommand::Check => {
            let config = load_and_warn(common)?;
            data_dir::check(&config.data_dir)?;
            println!("{}: ok", common.config.display());
        }
        ConfigCommand::Show => print!("{}", load(common)?.to_shown_yaml()),
    }
    Ok(Exit::Success)
}

/// The configuration of the common options. Its warnings are for those who start or check something, and would only
/// stand in the way of what every other command prints.
pub(in crate::cli) fn load(common: &Common) -> miette::Result<Config> {
    Ok(read(common)?.config)
}

/// As [`load`]; its warnings go to standard error.
pub(in crate::cli) fn load_and_warn(common: &Common) -> miette::Result<Config> {
    let loaded = read(common)?;
    for warning in &loaded.warnings {
        eprintln!("{warning}");
    }
    Ok(loaded.config)
}

fn read(common: &Common) -> Result<Loaded, ConfigError> {
    Config::load(
        &common.config,
        LoadOptions {
            dev_env_secrets: common.dev_env_secrets,
        },
    )
}
