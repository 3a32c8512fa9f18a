//! `helios-ci show`

use std::fmt::Write as _;

use clap::Args;

use super::runs::{encode, table};
use crate::{
    cli::{
        Common, Exit, Outcome,
        client::{Client, ClientArgs, ClientError, json_text},
    },
    foreign_text::printable,
    model::diagnostic::Diagnostic,
    web::api::types::{JobDetail, Keep, RunDetail},
};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  helios-ci show 01k9zk6x0f5t3b8w2q7m4d1c0e          a run with its jobs, or a job with its steps
  helios-ci show --json 01k9zk6x0f5t3b8w2q7m4d1c0e")]
pub(in crate::cli) struct ShowArgs {
    #[command(flatten)]
    client: ClientArgs,
    /// The id of a run or a job.
    id: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(in crate::cli) async fn run(common: &Common, args: ShowArgs) -> Outcome {
    let id = encode(&args.id);
    let text = Client::with(common, &args.client, async |client| {
        match client.get::<RunDetail>(&format!("/api/v1/runs/{id}")).await {
            Ok(run) if args.json => Ok(json_text(&run)? + "\n"),
            Ok(run) => Ok(run_text(&run)),
            Err(ClientError::Refused { status: 404, .. }) => {
                let job: JobDetail = client.get(&format!("/api/v1/jobs/{id}")).await?;
                match args.json {
                    true => Ok(json_text(&job)? + "\n"),
                    false => Ok(job_text(&job)),
                }
            }
            Err(error) => Err(error.into()),
        }
    })
    .await?;
    print!("{text}");
    Ok(Exit::Success)
}

fn diagnostic_text(diagnostic: &Diagnostic) -> String {
    let mut text = format!(
        "  {}:{}:{}: {}\n",
        printable(&diagnostic.file),
        diagnostic.line,
        diagnostic.column,
        printable(&diagnostic.message)
    );
    if let Some(help) = &diagnostic.help {
        let _ = writeln!(text, "    help: {}", printable(help));
    }
    text
}

fn run_text(answer: &RunDetail) -> String {
    let mut text = table(std::slice::from_ref(&answer.run));
    for diagnostic in &answer.diagnostics {
        text.push_str(&diagnostic_text(diagnostic));
    }
    for attempt in &answer.attempts {
        let _ = writeln!(
            text,
            "  attempt {}  {}  by {}",
            attempt.number,
            attempt.state,
            printable(&attempt.by)
        );
        for job in &attempt.jobs {
            let _ = writeln!(
                text,
                "    {}  {:<9}  {}{}",
                job.id,
                job.state,
                printable(&job.name),
                in_brackets(job.reason.as_deref())
            );
        }
    }
    for report in &answer.undelivered {
        let _ = writeln!(text, "  not sent to the forge: {}", printable(report));
    }
    text
}

fn in_brackets(text: Option<&str>) -> String {
    text.map(|text| format!("  ({})", printable(text))).unwrap_or_default()
}

fn job_text(answer: &JobDetail) -> String {
    let job = &answer.job;
    let mut text = format!(
        "{}  {}  {}  run {}\n",
        job.id,
        job.state,
        printable(&job.name),
        answer.run
    );
    if let Some(reason) = &job.reason {
        let _ = writeln!(text, "  {}", printable(reason));
    }
    for attempt in &answer.attempts {
        let cause = attempt.cause.as_deref().map(|cause| format!(": {}", printable(cause)));
        let _ = writeln!(
            text,
            "  try {} on {}  {}{}",
            attempt.number,
            attempt.node,
            attempt.state,
            cause.unwrap_or_default()
        );
    }
    text.push_str(&keep_text(answer.keep.as_ref()));
    for step in &answer.steps {
        let _ = writeln!(
            text,
            "  {:>2}  {:<9}  {}{}",
            step.index + 1,
            step.state,
            printable(&step.name),
            in_brackets(step.message.as_deref())
        );
    }
    text
}

/// The machine of the newest try, when it is kept or is to be; nothing when it is not.
pub(in crate::cli) fn keep_text(keep: Option<&Keep>) -> String {
    let Some(keep) = keep else { return String::new() };
    let name = keep.machine.as_ref().map(ToString::to_string).unwrap_or_default();
    let mut text = format!("machine {name}: {}\n", printable(&keep.words));
    if let Some(line) = &keep.attach {
        let _ = writeln!(text, "  {}", printable(line));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_workflow_comes_with_what_to_do() {
        let diagnostic = Diagnostic {
            file: ".github/workflows/ci.yml".into(),
            line: 5,
            column: 14,
            message: "there is no label `windows-11`".into(),
            help: Some("possible: debian-13".into()),
            ..Diagnostic::default()
        };
        assert_eq!(
            diagnostic_text(&diagnostic),
            "  .github/workflows/ci.yml:5:14: there is no label `windows-11`\n    help: possible: debian-13\n"
        );
    }
}
