//! `helios-ci validate`

use std::{
    fmt::Write as _,
    fs, io,
    io::Read as _,
    path::{Path, PathBuf},
};

use clap::{Args, ValueEnum};
use miette::miette;
use serde::Serialize;

use super::complaint::{Complaint, ShownFile};
use crate::{
    cli::{Exit, Outcome},
    foreign_text::printable,
    forge::FORGEJO_WORKFLOWS,
    model::diagnostic::{Diagnostic, Severity},
    workflow::{self, Findings},
};

#[derive(Debug, Args)]
#[command(after_help = "\
A file that is no valid workflow is an error. What is valid and does not run here yet is a warning, and so is advice.
Exit code 1: there is an error, or with --runnable something that does not run here.

Examples:
  helios-ci validate
  helios-ci validate .github/workflows --format short
  helios-ci validate ci.yml --runnable --format json")]
pub(in crate::cli) struct ValidateArgs {
    /// Files, or folders of them. Without any, the workflow files of this folder, found as in a repository.
    paths: Vec<PathBuf>,
    /// How complaints are printed.
    #[arg(long, value_enum, default_value_t = Format::Human)]
    format: Format,
    /// Fail also for what is valid and does not run here yet.
    #[arg(long)]
    runnable: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// With the lines of the file.
    Human,
    /// `file:line:column: message [code]`, one a line.
    Short,
    /// One JSON document.
    Json,
}

/// One file's complaints, as JSON.
#[derive(Debug, Serialize)]
struct FileAnswer {
    file: String,
    /// It is a valid workflow.
    valid: bool,
    /// And it runs here.
    runnable: bool,
    diagnostics: Vec<Diagnostic>,
    /// How many more complaints there are.
    omitted: usize,
}

#[derive(Debug, Serialize)]
struct Answer {
    valid: bool,
    runnable: bool,
    files: Vec<FileAnswer>,
}

pub(in crate::cli) fn run(args: &ValidateArgs) -> Outcome {
    let files = match args.paths.as_slice() {
        [] => found_in(Path::new("."))?.ok_or_else(|| {
            miette!(
                help = "name the files: `helios-ci validate FILE…`",
                "there are no workflow files here"
            )
        })?,
        paths => {
            let mut files = Vec::new();
            for path in paths {
                files.extend(named(path)?);
            }
            files
        }
    };
    let mut answers = Vec::new();
    for path in files {
        let bytes = read(&path)?;
        let name = path.strip_prefix(".").unwrap_or(&path).display().to_string();
        let answer = judge(&name, workflow::findings(&name, &bytes));
        if args.format == Format::Human {
            show(&answer, &bytes);
        }
        answers.push(answer);
    }
    let answer = Answer {
        valid: answers.iter().all(|file| file.valid),
        runnable: answers.iter().all(|file| file.runnable),
        files: answers,
    };
    match args.format {
        Format::Human => println!("{}", summary(&answer)),
        Format::Short => print!("{}", short(&answer)),
        Format::Json => {
            let text = serde_json::to_string_pretty(&answer);
            println!(
                "{}",
                text.map_err(|error| miette!("cannot write the answer as JSON: {error}"))?
            );
        }
    }
    let good = answer.valid && (answer.runnable || !args.runnable);
    Ok(if good { Exit::Success } else { Exit::Failure })
}

fn judge(file: &str, findings: Findings) -> FileAnswer {
    let valid = findings.errors == 0;
    FileAnswer {
        file: file.to_owned(),
        valid,
        runnable: valid && findings.unsupported == 0,
        diagnostics: findings.diagnostics,
        omitted: findings.omitted,
    }
}

/// A file as it is; a folder's workflow files.
fn named(path: &Path) -> miette::Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    if let Some(files) = found_in(path)? {
        return Ok(files);
    }
    let mut files: Vec<PathBuf> = list(path)?
        .into_iter()
        .filter(|file| {
            let ending = file.extension().and_then(|ending| ending.to_str());
            matches!(ending, Some("yml" | "yaml" | "kdl")) && file.is_file()
        })
        .collect();
    files.sort();
    if files.is_empty() {
        return Err(miette!("there are no workflow files in {}", path.display()));
    }
    Ok(files)
}

/// The workflow files of a working tree, found as in a commit of a repository without a forge.
fn found_in(root: &Path) -> miette::Result<Option<Vec<PathBuf>>> {
    let mut there = Vec::new();
    for place in workflow::listed(FORGEJO_WORKFLOWS) {
        match place.strip_suffix('/') {
            Some(folder) if root.join(folder).is_dir() => {
                let files = list(&root.join(folder))?.into_iter().filter(|file| file.is_file());
                let names = files.filter_map(|file| Some(file.file_name()?.to_str()?.to_owned()));
                there.extend(names.map(|name| format!("{folder}/{name}")));
            }
            None if root.join(&place).is_file() => there.push(place),
            _ => {}
        }
    }
    let picked = workflow::pick(FORGEJO_WORKFLOWS, there.iter().map(String::as_str));
    Ok(picked.map(|pick| pick.files.iter().map(|file| root.join(file)).collect()))
}

fn list(folder: &Path) -> miette::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).and_then(|entries| entries.map(|entry| entry.map(|e| e.path())).collect());
    entries.map_err(|error: io::Error| miette!("cannot list {}: {error}", folder.display()))
}

/// At most one byte more than a workflow file may have, which is enough to refuse it.
fn read(path: &Path) -> miette::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let most = workflow::MAX_FILE as u64 + 1;
    fs::File::open(path)
        .and_then(|file| file.take(most).read_to_end(&mut bytes))
        .map_err(|error| miette!("cannot read {}: {error}", path.display()))?;
    Ok(bytes)
}

fn show(answer: &FileAnswer, bytes: &[u8]) {
    let file = ShownFile::new(&answer.file, &String::from_utf8_lossy(bytes));
    for one in &answer.diagnostics {
        println!("{:?}", miette::Report::new(Complaint::new(one, &file)));
    }
    if answer.omitted > 0 {
        println!("{}: {} more\n", printable(&answer.file), answer.omitted);
    }
}

fn short(answer: &Answer) -> String {
    let mut text = String::new();
    for file in &answer.files {
        for one in &file.diagnostics {
            let help = one
                .help
                .as_ref()
                .map(|help| format!(" ({})", printable(help)))
                .unwrap_or_default();
            let _ = writeln!(
                text,
                "{}:{}:{}: {}{help} [{}]",
                printable(&one.file),
                one.line,
                one.column,
                printable(&one.message),
                one.code
            );
        }
        if file.omitted > 0 {
            let _ = writeln!(text, "{}:1:1: {} more", printable(&file.file), file.omitted);
        }
    }
    text
}

fn summary(answer: &Answer) -> String {
    let of = |severity| {
        let all = answer.files.iter().flat_map(|file| &file.diagnostics);
        all.filter(|d| d.severity == severity).count()
    };
    let count = |number: usize, one: &str, many: &str| match number {
        1 => format!("1 {one}"),
        number => format!("{number} {many}"),
    };
    let files = count(answer.files.len(), "file", "files");
    let errors = count(of(Severity::Error), "error", "errors");
    let unsupported = count(
        of(Severity::Unsupported),
        "thing that does not run here yet",
        "things that do not run here yet",
    );
    let warnings = count(of(Severity::Warning), "warning", "warnings");
    let verdict = match (answer.valid, answer.runnable) {
        (false, _) => "not valid",
        (true, false) => "valid, and not all of it runs here yet",
        (true, true) => "valid",
    };
    format!("{files}: {verdict} ({errors}, {unsupported}, {warnings})")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(text: &str) -> Answer {
        let file = judge("ci.yml", workflow::findings("ci.yml", text.as_bytes()));
        Answer {
            valid: file.valid,
            runnable: file.runnable,
            files: vec![file],
        }
    }

    #[test]
    fn an_editor_gets_a_line_for_each_complaint() {
        let answer =
            answer("on: push\npermissions: {}\njobs:\n  a:\n    runs-on: x\n    step: []\n    steps: [{run: x}]\n");
        insta::assert_snapshot!(short(&answer), @r"
        ci.yml:2:1: `permissions` in a workflow is not supported yet (no token of the forge reaches the machine, so there is nothing to limit; remove it) [unsupported-permissions]
        ci.yml:6:5: unknown key `step` in a job (did you mean `steps`?) [unknown-key]
        ");
        assert!(summary(&answer).starts_with("1 file: not valid (1 error, 1 thing"));
    }

    #[test]
    fn the_two_layers_are_told_apart() {
        let clean = answer("on: push\njobs: {a: {runs-on: x, steps: [{run: x}]}}");
        assert!(
            clean.valid && clean.runnable && short(&clean).is_empty(),
            "{}",
            short(&clean)
        );
        let later = answer("on: push\npermissions: {}\njobs: {a: {runs-on: x, steps: [{run: x}]}}");
        assert!(later.valid && !later.runnable);
        let wrong = answer("on: psh\njobs: {a: {runs-on: x, steps: [{run: x}]}}");
        assert!(!wrong.valid && !wrong.runnable);
        let many: String = (0..250)
            .map(|at| format!("  j{at}: {{permissions: {{}}, runs-on: x, steps: [{{run: x}}]}}\n"))
            .collect();
        let behind = answer(&format!(
            "on: push\njobs:\n{many}  z: {{iff: x, runs-on: x, steps: [{{run: x}}]}}\n"
        ));
        assert!(!behind.valid && behind.files[0].omitted > 0);
    }
}
