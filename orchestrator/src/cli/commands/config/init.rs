//! `helios-ci config init`: from nothing to a configuration that `config check` passes, and what comes next.

use std::{
    fs,
    io::{self, IsTerminal as _},
    os::unix::fs::FileTypeExt as _,
    path::{Path, PathBuf},
};

use clap::Args;
use miette::miette;

use super::{
    answers::Options,
    install::{Files, Owner, check_writable, refuse_existing},
    question::{Question, Questions},
};
use crate::{
    cli::{Common, wiring::data_dir},
    config::init::{Answers, ForgeAnswer, ImageAnswer},
    secret::Secret,
    web::identity::random_hex,
};

/// No key or token is longer.
const MAX_BYTES: u64 = 64 << 10;

#[derive(Debug, Args)]
#[command(after_help = "\
Asks, on the terminal, for what no option answers, and writes the configuration (--config, mode 0640) and its secrets
beside it (`secrets/`, 0700, each file 0600). The webhook's secret is made at random. Nothing that exists is overwritten.

A token or key is read from a file or from standard input and never from the command line, which others can see.

Examples:
  helios-ci config init
  helios-ci config init --yes --url https://forge.example.org --repository ada/engine --token-file token
  pass forge/token | helios-ci config init --yes --url https://forge.example.org --repository ada/engine --token-file -
  helios-ci config init --yes --forge github --app-id 123456 --private-key-file app.pem --repository ada/engine")]
pub(in crate::cli) struct InitArgs {
    /// Ask nothing: take every default. An answer without one is an error that names its option.
    #[arg(long)]
    yes: bool,
    /// Forgejo: a file with the bot's token, or `-` for standard input (only with --yes).
    #[arg(long, value_name = "FILE", conflicts_with = "private_key_file")]
    token_file: Option<PathBuf>,
    /// GitHub: a file with the App's private key, PEM, or `-` for standard input (only with --yes).
    #[arg(long, value_name = "FILE")]
    private_key_file: Option<PathBuf>,
    /// The user the daemon runs as [default: `helios-ci` for root where there is one, else the caller].
    #[arg(long, value_name = "USER")]
    owner: Option<String>,
    #[command(flatten)]
    options: Options,
}

pub(super) fn run(common: &Common, args: InitArgs) -> miette::Result<()> {
    let config = std::path::absolute(&common.config).map_err(|e| miette!("{}: {e}", common.config.display()))?;
    // Before anybody types anything.
    refuse_existing([config.as_path()])?;
    check_writable(&config)?;
    let owner = Owner::find(args.owner.as_deref())?;
    let stdin = io::stdin();
    let mut questions = Questions {
        yes: args.yes,
        terminal: stdin.is_terminal(),
        input: stdin.lock(),
    };
    let answers = args.options.answers(&mut questions)?;
    data_dir::check(&answers.data_dir)?;
    let credential = match answers.forge {
        ForgeAnswer::Forgejo => {
            not_both("--private-key-file", args.private_key_file.as_deref(), "Forgejo")?;
            token(&mut questions, args.token_file.as_deref())?
        }
        ForgeAnswer::Github { .. } => {
            not_both("--token-file", args.token_file.as_deref(), "GitHub")?;
            private_key(&mut questions, args.private_key_file)?
        }
    };
    let secrets = config.with_file_name("secrets");
    let files = Files {
        config: &config,
        secrets: &secrets,
        contents: &[
            (answers.credential_file(), credential),
            (answers.webhook_file(), Secret::new(format!("{}\n", random_hex()))),
        ],
        owner: &owner,
    };
    for path in files.write(|secrets| answers.to_yaml(secrets))? {
        println!("wrote {}", path.display());
    }
    print!("\n{}", next_steps(common, &answers, &secrets, &owner.name));
    Ok(())
}

fn not_both(option: &str, given: Option<&Path>, forge: &str) -> miette::Result<()> {
    match given {
        None => Ok(()),
        Some(_) => Err(miette!("{option} has no meaning with {forge}")),
    }
}

fn token<R: io::BufRead>(questions: &mut Questions<R>, file: Option<&Path>) -> miette::Result<Secret> {
    const OPTION: &str = "--token-file";
    match file {
        Some(file) => from_file(questions, OPTION, file),
        None => questions.secret(OPTION, "The bot's token, with write:repository; it is not shown"),
    }
}

fn private_key<R: io::BufRead>(questions: &mut Questions<R>, file: Option<PathBuf>) -> miette::Result<Secret> {
    const OPTION: &str = "--private-key-file";
    let file = questions.ask(
        Question {
            option: OPTION,
            text: "The file with the App's private key, PEM",
            given: file.map(|file| file.display().to_string()),
            default: None,
        },
        |text| Ok(text.to_owned()),
    )?;
    from_file(questions, OPTION, Path::new(&file))
}

/// The content of a file, or of standard input for `-`; what is wrong with it `Config::parse` says.
fn from_file<R: io::BufRead>(questions: &mut Questions<R>, option: &str, file: &Path) -> miette::Result<Secret> {
    if file == Path::new("-") {
        return match questions.yes {
            true => questions.rest(),
            false => Err(miette!(
                help = "add --yes, or name a file",
                "{option} - reads standard input, from which answers come without --yes"
            )),
        };
    }
    let cannot = |e: io::Error| miette!("{option}: cannot read {}: {e}", file.display());
    let meta = fs::metadata(file).map_err(cannot)?;
    // A process substitution of a shell is a pipe.
    if !(meta.is_file() || meta.file_type().is_fifo()) || meta.len() > MAX_BYTES {
        return Err(miette!("{option}: {} is no file with a token or key", file.display()));
    }
    let mut text = String::new();
    let opened = fs::File::open(file).map_err(cannot)?;
    io::Read::read_to_string(&mut io::Read::take(opened, MAX_BYTES), &mut text).map_err(cannot)?;
    Ok(Secret::new(text))
}

/// What is left to do, in its order, as commands that can be copied.
fn next_steps(common: &Common, answers: &Answers, secrets: &Path, owner: &str) -> String {
    let program = common.program();
    let (hook, secret) = (answers.webhook_url(), secrets.join(answers.webhook_file()));
    let secret = secret.display();
    let mut steps = vec![match answers.forge {
        ForgeAnswer::Forgejo => format!(
            "At the forge, in each repository: the bot as a collaborator who may write, and a webhook of the type\n     \
             Forgejo (or Gitea) to {hook}, content type application/json, push events, and as its\n     \
             secret what {secret} holds."
        ),
        ForgeAnswer::Github { app_id } => format!(
            "On the page of App {app_id}: its webhook to {hook}, content type JSON, as its secret what\n     {secret} holds; \
             permissions checks: write, contents: read, metadata: read; event push. Install it on the repositories."
        ),
    }];
    let label = &answers.label;
    match &answers.image {
        ImageAnswer::Volume { .. } => {
            steps.push(format!("As root: {program} setup --yes"));
            steps.push(format!("As root: {program} image import FILE {label} --sha256 DIGEST"));
            steps.push(format!("As root: {program} doctor"));
        }
        ImageAnswer::File { .. } => steps.push(format!("As {owner}: {program} doctor")),
    }
    steps.push(match cfg!(target_os = "illumos") {
        true => "svcadm enable -s helios-ci".to_owned(),
        false => format!("As {owner}: {program} serve"),
    });
    if matches!(answers.forge, ForgeAnswer::Forgejo) {
        steps.push(
            "Push a workflow in .helios/workflows: of those in .forgejo/workflows the forge's own Actions, where they are\n     \
             on, want to run each a second time."
                .to_owned(),
        );
    }
    let mut text = "Next:\n".to_owned();
    for (number, step) in (1..).zip(steps) {
        text += &format!("  {number}. {step}\n");
    }
    text
}
