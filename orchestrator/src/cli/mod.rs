//! The command line: one file per subcommand. Everything is wired here and nowhere else.

mod client;
mod commands;
mod table;
mod wiring;

use std::{error::Error, path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};

use self::{
    client::{ClientError, Interrupted},
    commands::{
        config, console, control, deliveries, doctor, eval, explain, image, local, login_link, logs, machine, relay,
        runs, setup, show, token, trigger, validate, why,
    },
    wiring::{
        machined,
        serve::{self, HandOverLate},
    },
};
use crate::{
    config::DEFAULT_PATH,
    logs::LogError,
    machine::MachineError,
    model::state::{JobState, RunState},
    store::StoreError,
    telemetry,
};

/// What the process ends with; documented in `helios-ci help`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// All well; for `logs -f`, `run` and `trigger --wait`: the job or run succeeded.
    Success = 0,
    /// It failed or ran into a time limit; for `eval`: the expression is wrong.
    Failure = 1,
    /// The command line, the configuration or a file is wrong.
    Usage = 2,
    /// It was cancelled.
    Cancelled = 3,
    /// helios-ci failed, not the job.
    Error = 4,
    /// The daemon cannot be reached or refused.
    Unreachable = 5,
    /// SIGINT or SIGTERM; as shells count it (128 and the number of SIGINT).
    Interrupted = 130,
}

impl Exit {
    /// For a job's final state.
    #[must_use]
    pub fn of_job(state: JobState) -> Self {
        match state {
            JobState::Success | JobState::Skipped => Self::Success,
            JobState::Cancelled => Self::Cancelled,
            JobState::Error => Self::Error,
            JobState::Failure | JobState::TimedOut | JobState::Waiting | JobState::Queued | JobState::Active => {
                Self::Failure
            }
        }
    }

    /// For a run's final state.
    #[must_use]
    pub fn of_run(state: RunState) -> Self {
        match state {
            RunState::Success | RunState::Skipped => Self::Success,
            RunState::Cancelled => Self::Cancelled,
            RunState::Error => Self::Error,
            RunState::Failure | RunState::Active => Self::Failure,
        }
    }

    /// For a command that ended with an error. What asks for another command line, configuration or file is the
    /// usual case; what the daemon, the database or a machine did wrong is known by its type.
    fn of_error(report: &miette::Report) -> Self {
        if report.downcast_ref::<ClientError>().is_some() {
            return Self::Unreachable;
        }
        if report.downcast_ref::<Interrupted>().is_some() {
            return Self::Interrupted;
        }
        match report.downcast_ref::<Reported>() {
            Some(reported) if reported.is_ours() => Self::Error,
            _ => Self::Usage,
        }
    }
}

/// Maintenance at once, with what we printed in the service's log.
const SMF_EXIT_ERR_CONFIG: u8 = 96;

const AFTER_HELP: &str = "\
Exit codes:
  0  success (for `run`, `logs -f` and `trigger --wait`: of the run, job or build)
  1  it failed or ran into a time limit (for `validate` and `eval`: what they were given is wrong)
  2  the command line or the configuration is wrong
  3  it was cancelled
  4  helios-ci failed, not the job
  5  the daemon cannot be reached, or refused
130  it was interrupted

Examples:
  helios-ci --config /etc/helios-ci/config.yaml config check
  helios-ci run .github/workflows/ci.yml
  helios-ci serve
  helios-ci runs --repository ada/engine
  helios-ci logs -f 01k9zk6x0f5t3b8w2q7m4d1c0e
  helios-ci trigger codeberg ada/engine main --wait";

/// A self-hosted CI for illumos: one hardware-isolated machine per job.
#[derive(Debug, Parser)]
#[command(name = "helios-ci", version, after_help = AFTER_HELP, arg_required_else_help = true)]
struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

/// What every subcommand understands.
#[derive(Debug, Args)]
struct Common {
    /// The configuration file.
    #[arg(
        long,
        global = true,
        env = "HELIOS_CI_CONFIG",
        default_value = DEFAULT_PATH
    )]
    config: PathBuf,
    /// Allow `env:NAME` secrets in the configuration. For development only.
    #[arg(long, global = true, env = "HELIOS_CI_DEV_ENV_SECRETS")]
    dev_env_secrets: bool,
    /// Say on standard error what is done; twice, in every detail. `RUST_LOG` says it more finely.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
}

impl Common {
    /// How a command for the same configuration begins, for advice that can be copied.
    fn program(&self) -> String {
        match self.config.to_str() {
            Some(DEFAULT_PATH) => "helios-ci".to_owned(),
            _ => format!("helios-ci --config {}", self.config.display()),
        }
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon in the foreground.
    Serve(serve::ServeArgs),
    /// Run a workflow file of this working tree in fresh machines, without a server.
    Run(local::RunArgs),
    /// Check workflow files, without a server or a configuration.
    Validate(validate::ValidateArgs),
    /// Say what a key of a workflow file, or the code of a complaint, means.
    Explain(explain::ExplainArgs),
    /// Evaluate an expression of the workflow language.
    Eval(eval::EvalArgs),
    /// Run the process that keeps the machines, in the foreground, with the privileges they need.
    Machined(machined::MachinedArgs),
    /// List runs, newest first.
    Runs(runs::RunsArgs),
    /// Show a run or a job.
    Show(show::ShowArgs),
    /// Print a job's log; with -f follow it and end with the job's result.
    Logs(logs::LogsArgs),
    /// Cancel a run or a job. A second time forces.
    Cancel(control::CancelArgs),
    /// Run a run again: all of it, or what failed.
    Rerun(control::RerunArgs),
    /// Read the console of a machine, and type on it once it is kept after its job.
    Console(console::ConsoleArgs),
    /// Say what a job waits for.
    Why(why::WhyArgs),
    /// Run what a push of a branch or tag would run, or one workflow file of it.
    Trigger(trigger::TriggerArgs),
    /// List what forges delivered, newest first, and what came of it; or what was missed.
    Deliveries(deliveries::DeliveriesArgs),
    /// Try every connection now, take up what waited for it, and list what was missed.
    CatchUp(deliveries::CatchUpArgs),
    /// Make, list and revoke API tokens.
    #[command(subcommand)]
    Token(token::TokenCommand),
    /// Make a link that logs one browser in, once.
    LoginLink(login_link::LoginLinkArgs),
    /// Import, list and verify golden disks.
    #[command(subcommand)]
    Image(image::ImageCommand),
    /// Make what an illumos host needs before its first machine: shows it first. As root.
    Setup(setup::SetupArgs),
    /// List machines, keep them after their job, and show what one does to an illumos host.
    #[command(subcommand)]
    Machine(machine::MachineCommand),
    /// Check and show the configuration.
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Look at everything this node needs, and say what to do.
    Doctor(doctor::DoctorArgs),
    /// Copy standard input and output to a UNIX socket: how a QEMU guest reaches its node.
    #[command(hide = true)]
    Relay(relay::RelayArgs),
    /// Print the version.
    #[command(after_help = "Example:\n  helios-ci version")]
    Version,
}

/// What a subcommand ends with.
type Outcome = miette::Result<Exit>;

/// A typed error, with its causes, as it is shown to a person. Its type is kept, because it decides the exit code.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
#[error(transparent)]
struct Reported(Box<dyn Error + Send + Sync>);

impl Reported {
    /// Whether helios-ci failed, or what it works with, and not the one who gave the command.
    fn is_ours(&self) -> bool {
        let mut error: Option<&(dyn Error + 'static)> = Some(&*self.0);
        while let Some(this) = error {
            if let Some(error) = this.downcast_ref::<StoreError>() {
                // Where the database lies is configured.
                return !matches!(error, StoreError::Location { .. });
            }
            if this.is::<MachineError>() || this.is::<LogError>() || this.is::<HandOverLate>() {
                return true;
            }
            error = this.source();
        }
        false
    }
}

fn report(error: impl Error + Send + Sync + 'static) -> miette::Report {
    Reported(Box::new(error)).into()
}

/// Parses the command line and runs what it asks for.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    // The relay is started for every connection of a guest: it must be small and quick.
    if let Command::Relay(args) = &cli.command {
        return relay::run(args);
    }
    // What waits for a better configuration must not be restarted again and again (smf_method(7)).
    let service =
        matches!(cli.command, Command::Serve(_) | Command::Machined(_)) && std::env::var_os("SMF_FMRI").is_some();
    let outcome = say_what_is_done(&cli).and_then(|()| run(cli));
    let failed = outcome.is_err();
    let exit = outcome.unwrap_or_else(|report| {
        let exit = Exit::of_error(&report);
        if exit != Exit::Interrupted {
            eprintln!("{report:?}");
        }
        exit
    });
    // What the host or the database did wrong may be over at the next start; SMF gives up by itself after some.
    if service && failed && exit == Exit::Usage {
        return ExitCode::from(SMF_EXIT_ERR_CONFIG);
    }
    ExitCode::from(exit as u8)
}

/// The daemons log in any case, and set that up themselves.
fn say_what_is_done(cli: &Cli) -> miette::Result<()> {
    let is_daemon = matches!(cli.command, Command::Serve(_) | Command::Machined(_));
    if is_daemon || cli.common.verbose == 0 {
        return Ok(());
    }
    telemetry::log_to_stderr(telemetry::LogFormat::Text, cli.common.verbose).map_err(report)
}

fn run(cli: Cli) -> Outcome {
    let threads = if matches!(cli.command, Command::Serve(_) | Command::Machined(_) | Command::Run(_)) {
        None
    } else {
        Some(1)
    };
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if let Some(threads) = threads {
        runtime.worker_threads(threads);
    }
    let runtime = runtime
        .enable_all()
        .build()
        .map_err(|e| miette::miette!("cannot start the asynchronous runtime: {e}"))?;
    runtime.block_on(async {
        let common = &cli.common;
        match cli.command {
            Command::Serve(args) => serve::run(common, args).await,
            Command::Run(args) => local::run(common, args).await,
            Command::Validate(args) => validate::run(&args),
            Command::Explain(args) => explain::run(&args),
            Command::Eval(args) => eval::run(&args),
            Command::Machined(args) => machined::run(common, args).await,
            Command::Runs(args) => runs::run(common, args).await,
            Command::Show(args) => show::run(common, args).await,
            Command::Logs(args) => logs::run(common, args).await,
            Command::Cancel(args) => control::cancel(common, args).await,
            Command::Rerun(args) => control::rerun(common, args).await,
            Command::Console(args) => console::run(common, args).await,
            Command::Why(args) => why::run(common, args).await,
            Command::Trigger(args) => trigger::run(common, args).await,
            Command::Deliveries(args) => deliveries::run(common, args).await,
            Command::CatchUp(args) => deliveries::catch_up(common, args).await,
            Command::Token(command) => token::run(common, command).await,
            Command::LoginLink(args) => login_link::run(common, &args).await,
            Command::Image(command) => image::run(common, command).await,
            Command::Setup(args) => setup::run(common, &args),
            Command::Machine(command) => machine::run(common, command).await,
            Command::Doctor(args) => doctor::run(common, args).await,
            Command::Config(command) => config::run(common, command),
            // Both are done without a runtime.
            Command::Relay(_) | Command::Version => {
                println!("helios-ci {}", env!("CARGO_PKG_VERSION"));
                Ok(Exit::Success)
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_that_does_something_has_an_example() {
        fn without(command: &clap::Command, path: &str, missing: &mut Vec<String>) {
            let path = format!("{path} {}", command.get_name());
            let groups = command.get_subcommands().next().is_some();
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            if !groups && !command.is_hide_set() && !help.contains("helios-ci ") {
                missing.push(path.clone());
            }
            for command in command.get_subcommands() {
                without(command, &path, missing);
            }
        }
        let mut missing = Vec::new();
        without(&Cli::command(), "", &mut missing);
        assert!(missing.is_empty(), "no example: {missing:#?}");
    }

    #[test]
    fn final_states_become_exit_codes() {
        assert_eq!(Exit::of_job(JobState::Success), Exit::Success);
        assert_eq!(Exit::of_job(JobState::TimedOut), Exit::Failure);
        assert_eq!(Exit::of_job(JobState::Cancelled), Exit::Cancelled);
        assert_eq!(Exit::of_job(JobState::Error), Exit::Error);
        assert_eq!(Exit::of_run(RunState::Skipped), Exit::Success);
        assert_eq!(Exit::of_run(RunState::Failure), Exit::Failure);
        assert_eq!(Exit::of_run(RunState::Cancelled), Exit::Cancelled);
        assert_eq!(Exit::of_run(RunState::Error), Exit::Error);
    }

    #[test]
    fn only_what_another_command_line_would_mend_is_a_misuse() {
        #[derive(Debug, thiserror::Error)]
        #[error("around it")]
        struct Around(#[source] StoreError);
        let store = || StoreError::Internal {
            what: "claim a job",
            reason: "two rows have one id".into(),
        };
        let unreachable = ClientError::NoToken { reason: "none".into() };
        assert_eq!(Exit::of_error(&report(store())), Exit::Error);
        assert_eq!(Exit::of_error(&report(Around(store()))), Exit::Error);
        let place = StoreError::Location {
            path: "/nonexistent".into(),
            reason: "no such directory".into(),
        };
        assert_eq!(Exit::of_error(&report(place)), Exit::Usage);
        assert_eq!(Exit::of_error(&unreachable.into()), Exit::Unreachable);
        assert_eq!(Exit::of_error(&report(std::io::Error::other("x"))), Exit::Usage);
        assert_eq!(Exit::of_error(&miette::miette!("there is no size `huge`")), Exit::Usage);
    }
}
