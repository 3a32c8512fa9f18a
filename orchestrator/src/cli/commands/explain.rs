//! `helios-ci explain`

use clap::Args;
use miette::miette;

use crate::{
    cli::{Exit, Outcome},
    foreign_text::one_line,
    workflow::{Explained, explain},
};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  helios-ci explain jobs.<id>.strategy.matrix
  helios-ci explain timeout-minutes
  helios-ci explain unsupported-container")]
pub(in crate::cli) struct ExplainArgs {
    /// A key (`runs-on`), its whole path (`jobs.<id>.runs-on`), or a complaint's code (`unknown-key`).
    key: String,
}

pub(in crate::cli) fn run(args: &ExplainArgs) -> Outcome {
    match explain(&args.key) {
        Explained::Found(text) => {
            print!("{text}");
            Ok(Exit::Success)
        }
        Explained::Unknown(nearest) => {
            let help = match nearest {
                Some(near) => format!("did you mean `{near}`?"),
                None => "docs/workflows.md lists all keys and codes".to_owned(),
            };
            Err(miette!(
                help = help,
                "there is no key `{}` in a workflow file",
                one_line(&args.key, 80)
            ))
        }
    }
}
