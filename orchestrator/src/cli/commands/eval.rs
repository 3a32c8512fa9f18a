//! `helios-ci eval`

use std::{
    fmt::Display,
    path::{Path, PathBuf},
};

use clap::{Args, ValueEnum};
use miette::{Diagnostic, LabeledSpan, NamedSource, miette};

use crate::{
    cli::{Exit, Outcome, report},
    expression::{
        Available, CONTEXTS, Condition, ErrorKind, Evaluated, Expression, ExpressionError, Function, Input, Object,
        Outcome as Ended, Stage, Status, StatusFunctions, Template, Value,
    },
    files,
    foreign_text::is_obeyed,
    yaml::nearest,
};

/// The largest file of contexts, in bytes.
const MAX_CONTEXTS: u64 = 16 << 20;

#[derive(Debug, Args)]
#[command(after_help = "\
Without --context each of GitHub's contexts is there and empty. With it, those of the file are there \
and no others. In an `if`, the status functions tell of `job.status` and of the `result` of each of \
`needs`, as the file has them; else all has gone well. `hashFiles` needs the workspace of a job, so \
it is an error here.

The value is printed as JSON; numbers that JSON does not have as \"NaN\", \"Infinity\" and \
\"-Infinity\". An expression that is wrong, or has no value, ends with exit code 1.

Examples:
  helios-ci eval \"contains('Hello', 'ell') && 1 || 2\"
  helios-ci eval github.event.labels.*.name --context contexts.json
  helios-ci eval --type if \"github.ref == 'refs/heads/main' || failure()\" --context contexts.json
  helios-ci eval --type string 'cache-${{ runner.os }}-${{ matrix.version }}' --context contexts.json")]
pub(in crate::cli) struct EvalArgs {
    /// The expression.
    #[arg(allow_hyphen_values = true)]
    expression: String,
    /// A JSON file: an object with a context by each name.
    #[arg(long, value_name = "FILE")]
    context: Option<PathBuf>,
    /// What the text is, when it is no bare expression.
    #[arg(long = "type", value_enum, value_name = "TYPE")]
    kind: Option<Kind>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// The value of an `if`, with or without `${{ }}`: true or false.
    If,
    /// A text in which `${{ }}` may stand. One that is nothing else keeps the kind of its value.
    String,
}

pub(in crate::cli) fn run(args: &EvalArgs) -> Outcome {
    let contexts = match &args.context {
        Some(path) => read(path)?,
        None => Object::new(CONTEXTS.map(|name| (name, Value::Object(Object::new::<&str>([]))))),
    };
    let failure = match evaluate(args, &contexts) {
        Ok(Evaluated::Value(value)) => {
            println!("{}", serde_json::to_string_pretty(&value).map_err(report)?);
            return Ok(Exit::Success);
        }
        Ok(Evaluated::NeedsHash(_)) => miette!(
            code = "expression::evaluation",
            help = "helios-ci hashes files on the machine of a job",
            "`hashFiles` needs the files of a job's workspace, and here is none"
        ),
        Err(error) => Complaint::new(&args.expression, &contexts, error).into(),
    };
    // The expression is wrong, and not the command.
    eprintln!("{failure:?}");
    Ok(Exit::Failure)
}

fn read(path: &Path) -> miette::Result<Object> {
    let name = path.display();
    let bytes = files::read_bounded(path, MAX_CONTEXTS).map_err(report)?;
    let bytes = bytes.ok_or_else(|| miette!("there is no file {name}"))?;
    let text = String::from_utf8(bytes).map_err(|_| miette!("{name} is not UTF-8 text"))?;
    match Value::from_json(&text, false) {
        Ok(Value::Object(contexts)) => Ok(contexts),
        Ok(other) => Err(miette!(
            help = r#"such as {"github": {"ref": "refs/heads/main"}, "matrix": {"os": "omnios"}}"#,
            "{name} holds no object with contexts but a value of the kind {}",
            other.kind()
        )),
        Err(error) => Err(miette!("{name} is not JSON: {error}")),
    }
}

fn evaluate(args: &EvalArgs, contexts: &Object) -> Result<Evaluated, ExpressionError> {
    let names: Vec<&str> = contexts.entries().iter().map(|(name, _)| &**name).collect();
    let is_if = args.kind == Some(Kind::If);
    let available = Available {
        contexts: &names,
        status: if is_if {
            StatusFunctions::OfJobs
        } else {
            StatusFunctions::None
        },
        hash_files: true,
    };
    let jobs = results(contexts);
    let input = Input {
        contexts,
        status: Status {
            so_far: so_far(contexts, &jobs),
            jobs: &jobs,
        },
        hashes: &[],
    };
    let text = &args.expression;
    match args.kind {
        None => Expression::parse(text, &available)?.evaluate(&input),
        Some(Kind::If) => Condition::parse(text, &available)?.evaluate(&input),
        Some(Kind::String) => Template::parse(text, &available)?.evaluate(&input),
    }
}

/// How the jobs of `needs` have ended.
fn results(contexts: &Object) -> Vec<(String, Ended)> {
    let Some(Value::Object(needs)) = contexts.get("needs") else {
        return Vec::new();
    };
    let jobs = needs.entries().iter();
    jobs.filter_map(|(id, job)| Some((id.to_string(), ended(field(job, "result")?)?)))
        .collect()
}

fn so_far(contexts: &Object, jobs: &[(String, Ended)]) -> Ended {
    let of_job = contexts.get("job").and_then(|job| field(job, "status")).and_then(ended);
    let worst = || jobs.iter().map(|(_, ended)| *ended).max();
    of_job.or_else(worst).unwrap_or(Ended::Success)
}

fn field<'v>(value: &'v Value, name: &str) -> Option<&'v Value> {
    match value {
        Value::Object(object) => object.get(name),
        _ => None,
    }
}

fn ended(value: &Value) -> Option<Ended> {
    let Value::String(text) = value else { return None };
    match text.as_str() {
        "success" => Some(Ended::Success),
        "skipped" => Some(Ended::Skipped),
        "failure" => Some(Ended::Failure),
        "cancelled" => Some(Ended::Cancelled),
        _ => None,
    }
}

/// As it is shown: a terminal obeys control characters. The places of the others stay.
fn shown(text: &str) -> String {
    let shown = |c: char| match c {
        '\n' | '\t' => (c, 1),
        c if is_obeyed(c) => ('?', c.len_utf8()),
        c => (c, 1),
    };
    text.chars()
        .flat_map(|c| {
            let (shown, times) = shown(c);
            std::iter::repeat_n(shown, times)
        })
        .collect()
}

/// What is wrong, with its place in the expression.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
struct Complaint {
    text: NamedSource<String>,
    error: ExpressionError,
    help: Option<String>,
}

impl Complaint {
    fn new(text: &str, contexts: &Object, error: ExpressionError) -> Self {
        let meant = match &error.kind {
            ErrorKind::UnknownContext { name, .. } => {
                nearest(name, contexts.entries().iter().map(|(name, _)| &**name)).map(str::to_owned)
            }
            ErrorKind::UnknownFunction(name) => {
                // Names are compared in small letters.
                let known = Function::ALL.map(|function| function.name().to_lowercase());
                let meant = nearest(name, known.iter().map(String::as_str)).and_then(Function::named);
                meant.map(|function| function.name().to_owned())
            }
            _ => None,
        };
        let meant = meant.map(|meant| format!("did you mean `{meant}`?"));
        Self {
            help: meant.or_else(|| error.help()),
            text: NamedSource::new("expression", shown(text)),
            error,
        }
    }
}

impl Diagnostic for Complaint {
    fn code<'a>(&'a self) -> Option<Box<dyn Display + 'a>> {
        Some(Box::new(match self.error.stage() {
            Stage::Lexing => "expression::lexing",
            Stage::Parsing => "expression::parsing",
            Stage::Evaluation => "expression::evaluation",
        }))
    }

    fn help<'a>(&'a self) -> Option<Box<dyn Display + 'a>> {
        self.help.as_ref().map(|help| Box::new(help) as Box<dyn Display>)
    }

    fn source_code(&self) -> Option<&dyn miette::SourceCode> {
        Some(&self.text)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let span = &self.error.span;
        let label = LabeledSpan::new(Some("here".into()), span.start, span.len());
        Some(Box::new(std::iter::once(label)))
    }
}
