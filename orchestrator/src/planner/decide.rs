//! What a commit's workflow files mean for an event. Pure.

use std::fmt::Display;

use crate::{
    config::Config,
    model::{
        diagnostic::Diagnostic,
        names::{CommitSha, Label},
        plan::{Plan, Template},
        trigger::{Event, RefCause, RefEvent},
    },
    store::{JobRequirement, NewRun, PlannedRun},
    workflow::{self, Defaults, Wanted},
};

/// A workflow file of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkflowFile {
    /// Its path in the repository.
    pub path: String,
    /// Its bytes, or why they cannot be used.
    pub text: Result<Vec<u8>, String>,
}

/// The runs that these files ask for, in the order of the files. A file that cannot be used becomes
/// a run that says why.
///
/// # Errors
/// Why none of them wants to run.
pub fn decide(files: &[WorkflowFile], event: &Event, config: &Config) -> Result<Vec<NewRun>, String> {
    choose(files, Some(event), config)
}

/// As [`decide`]; without an event every file is wanted.
fn choose(files: &[WorkflowFile], event: Option<&Event>, config: &Config) -> Result<Vec<NewRun>, String> {
    let defaults = Defaults {
        job_timeout_minutes: config.limits.job_timeout_minutes,
    };
    let mut runs: Vec<NewRun> = Vec::new();
    let mut wanted: Vec<(Plan, usize)> = Vec::new();
    let mut reasons = Vec::new();
    for file in files {
        let (text, read) = match &file.text {
            Ok(text) => (text.as_slice(), read(&file.path, text, event, &defaults)),
            Err(reason) => (
                &[][..],
                Wanted::Invalid(vec![complaint(&file.path, 1, 1, reason.clone(), None)]),
            ),
        };
        let new = |plan| NewRun {
            path: file.path.clone(),
            name: file.path.clone(),
            source: String::from_utf8_lossy(text).into_owned(),
            plan,
        };
        match read {
            Wanted::NotWanted(reason) => reasons.push(format!("{}: {reason}", file.path)),
            Wanted::Invalid(complaints) => runs.push(new(Err(complaints))),
            Wanted::Wanted(plan) => {
                let name = plan.name.clone();
                let required = require(&plan, config);
                wanted.push((plan.clone(), runs.len()));
                runs.push(match required {
                    Ok(jobs) => NewRun {
                        name,
                        ..new(Ok(PlannedRun { plan, jobs }))
                    },
                    // Called by its path, as every file that cannot be used: that is unique.
                    Err(complaints) => new(Err(complaints)),
                });
            }
        }
    }
    let plans: Vec<&Plan> = wanted.iter().map(|(plan, _)| plan).collect();
    for clash in workflow::equal_checks(&plans) {
        if let Some((_, index)) = wanted.iter().find(|(plan, _)| plan.path == clash.file) {
            let run = &mut runs[*index];
            match &mut run.plan {
                Err(complaints) => complaints.push(clash),
                plan => {
                    *plan = Err(vec![clash]);
                    run.name.clone_from(&run.path);
                }
            }
        }
    }
    if runs.is_empty() {
        Err(reasons.join("; "))
    } else {
        Ok(runs)
    }
}

fn read(path: &str, text: &[u8], event: Option<&Event>, defaults: &Defaults) -> Wanted {
    match event {
        Some(event) => workflow::read(path, text, event, defaults),
        None => match workflow::validate(path, text, defaults) {
            Ok(plan) => Wanted::Wanted(plan),
            Err(complaints) => Wanted::Invalid(complaints),
        },
    }
}

/// What `decide` says where a person may have named one of the files: that one runs whatever it listens to, because
/// naming it is the choice that its filters would make for a push. `commit` is the one that was found.
pub(super) fn asked(
    files: &[WorkflowFile],
    event: &Event,
    commit: &CommitSha,
    config: &Config,
) -> Result<Vec<NewRun>, String> {
    let Event::Ref(RefEvent { ref_name, cause }) = event;
    let (named, as_push) = match cause {
        RefCause::Push { .. } => (None, false),
        RefCause::Manual { workflow, as_push, .. } => (workflow.as_deref(), *as_push),
    };
    if files.is_empty() {
        return Err("the commit has no workflow files".to_owned());
    }
    if let Some(name) = named {
        let is_named =
            |file: &&WorkflowFile| file.path == name || file.path.rsplit('/').next().is_some_and(|short| short == name);
        let Some(file) = files.iter().find(is_named) else {
            let paths: Vec<&str> = files.iter().map(|file| file.path.as_str()).take(20).collect();
            return Err(format!(
                "the commit has no workflow file {name}; there are {}",
                paths.join(", ")
            ));
        };
        return choose(std::slice::from_ref(file), None, config);
    }
    let push = Event::push(ref_name.clone(), commit.clone(), None);
    decide(files, if as_push { &push } else { event }, config)
}

/// What each job needs of a node.
fn require(plan: &Plan, config: &Config) -> Result<Vec<JobRequirement>, Vec<Diagnostic>> {
    let mut complaints = Vec::new();
    let mut jobs = Vec::new();
    for job in &plan.jobs {
        let mut complain = |what: &dyn Display, help: &str| {
            let at = job.runs_on_span();
            let message = format!("job `{}`: {what}", job.id);
            complaints.push(complaint(&plan.path, at.line, at.column, message, Some(help.into())));
        };
        let known = |label: &Template<Label>| label.value(|| "`runs-on`".to_owned()).cloned();
        let labels: Vec<Label> = match job.runs_on.iter().map(known).collect() {
            Ok(labels) => labels,
            Err(unevaluated) => {
                complain(&unevaluated, "name a label of this server in `runs-on`");
                continue;
            }
        };
        let (label, image, usual) = match config.resolve_label(labels.first()) {
            Ok(found) => found,
            Err(unknown) => {
                complain(&unknown, "use one of the labels of this server in `runs-on`");
                continue;
            }
        };
        match labels.get(1).map_or(Ok(usual), |size| config.resolve_size(size, image)) {
            Ok(size) => jobs.push(JobRequirement {
                class: Config::class(&label, size),
                label,
                size,
            }),
            Err(unknown) => complain(&unknown, "use a size of this server: `runs-on: [label, size]`"),
        }
    }
    if complaints.is_empty() {
        Ok(jobs)
    } else {
        Err(complaints)
    }
}

fn complaint(file: &str, line: u32, column: u32, message: String, help: Option<String>) -> Diagnostic {
    Diagnostic {
        file: file.into(),
        line,
        column,
        message,
        help,
        ..Diagnostic::default()
    }
}

/// The words that keep a push from running anything, as GitHub knows them: one of these anywhere in the
/// message, or the trailer `skip-checks: true` as its last line, in a paragraph after the title's.
pub(super) fn skip_word(message: &str) -> Option<&'static str> {
    ["[skip ci]", "[ci skip]", "[no ci]", "[skip actions]", "[actions skip]"]
        .into_iter()
        .find(|word| message.contains(word))
        .or_else(|| skips_checks(message).then_some("skip-checks: true"))
}

fn skips_checks(message: &str) -> bool {
    let mut lines = message.trim().lines().map(str::trim).rev();
    let trailer = lines.next().and_then(|line| line.split_once(':'));
    trailer.is_some_and(|(key, value)| key.trim().eq_ignore_ascii_case("skip-checks") && value.trim() == "true")
        && lines.any(str::is_empty)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::LoadOptions;

    fn config() -> Config {
        let text = "node: n\ndata_dir: /nonexistent/data\ndefault_label: tiny\nimages:\n  tiny:\n    disk: /nonexistent/disk.qcow2\naliases:\n  ubuntu-latest: tiny\n";
        Config::parse(Path::new("config.yaml"), text, LoadOptions::default())
            .expect("a valid configuration")
            .config
    }

    fn push(branch: &str) -> Event {
        Event::push(
            format!("refs/heads/{branch}").parse().unwrap(),
            "a".repeat(40).parse().unwrap(),
            None,
        )
    }

    fn file(path: &str, text: &str) -> WorkflowFile {
        WorkflowFile {
            path: path.into(),
            text: Ok(text.into()),
        }
    }

    const GOOD: &str =
        "name: ci\non: push\njobs:\n  build:\n    runs-on: ubuntu-latest\n    steps:\n      - run: make\n";

    #[test]
    fn labels_become_classes_and_aliases_disappear() {
        let runs = decide(&[file(".github/workflows/ci.yml", GOOD)], &push("main"), &config()).unwrap();
        let planned = runs[0].plan.as_ref().unwrap();
        assert_eq!(planned.jobs[0].label.as_str(), "tiny");
        assert_eq!(planned.jobs[0].class.len(), 16);
        assert_eq!(runs[0].name, "ci");
    }

    #[test]
    fn an_unknown_label_is_a_complaint_with_the_labels_there_are() {
        let text = GOOD.replace("ubuntu-latest", "windows");
        let runs = decide(&[file("ci.yml", &text)], &push("main"), &config()).unwrap();
        let complaints = runs[0].plan.as_ref().unwrap_err();
        assert!(
            complaints[0].message.contains("windows") && complaints[0].message.contains("tiny"),
            "{complaints:?}"
        );
        // Where `runs-on` is written.
        assert_eq!((complaints[0].line, complaints[0].column), (5, 14));
    }

    #[test]
    fn a_job_may_name_a_size() {
        let text = GOOD.replace("ubuntu-latest", "[tiny, large]");
        let runs = decide(&[file("a.yml", &text)], &push("main"), &config()).unwrap();
        let size = runs[0].plan.as_ref().unwrap().jobs[0].size;
        assert_eq!((size.cpus, size.memory_mib), (4, 4096));
        let text = GOOD.replace("ubuntu-latest", "[tiny, giant]");
        let runs = decide(&[file("a.yml", &text)], &push("main"), &config()).unwrap();
        let complaints = runs[0].plan.as_ref().unwrap_err();
        assert!(
            complaints[0]
                .message
                .contains("no size `giant`; sizes here: large, medium, small"),
            "{complaints:?}"
        );
    }

    #[test]
    fn an_unknown_label_is_shown_where_it_stands() {
        let steps = "    steps:\n      - run: make\n";
        let text = format!(
            "on: push\njobs:\n  a:\n{steps}    runs-on: windows\n  b:\n    runs-on: [beos]\n{steps}  c: {{runs-on: os2, steps: [run: x]}}\n  d:\n    runs-on:\n      - amiga\n{steps}"
        );
        let runs = decide(&[file("ci.yml", &text)], &push("main"), &config()).unwrap();
        let places: Vec<String> = runs[0]
            .plan
            .as_ref()
            .unwrap_err()
            .iter()
            .map(|c| format!("{}:{}:{}", c.file, c.line, c.column))
            .collect();
        assert_eq!(
            places,
            ["ci.yml:6:14", "ci.yml:8:15", "ci.yml:11:16", "ci.yml:14:9"],
            "{text}"
        );
        // Without `runs-on` it is the default label that is missing: the job itself is the place.
        let none = Config {
            default_label: None,
            ..config()
        };
        let text = GOOD.replace("    runs-on: ubuntu-latest\n", "");
        let runs = decide(&[file("ci.yml", &text)], &push("main"), &none).unwrap();
        let complaint = &runs[0].plan.as_ref().unwrap_err()[0];
        assert_eq!((complaint.line, complaint.column), (4, 3), "{complaint}");
    }

    #[test]
    fn a_broken_file_does_not_keep_its_neighbour_from_running() {
        let runs = decide(
            &[file("a.yml", "on: push\njobs: 3\n"), file("b.yml", GOOD)],
            &push("main"),
            &config(),
        )
        .unwrap();
        assert!(runs[0].plan.is_err() && runs[1].plan.is_ok());
    }

    #[test]
    fn two_files_of_one_name_collide_in_words() {
        let runs = decide(&[file("a.yml", GOOD), file("b.yml", GOOD)], &push("main"), &config()).unwrap();
        assert!(runs[0].plan.is_ok());
        assert!(runs[1].plan.as_ref().unwrap_err()[0].message.contains("also made by"));
    }

    #[test]
    fn nothing_wanted_says_why() {
        let text = GOOD.replace("on: push", "on:\n  push:\n    branches: [release]");
        let reason = decide(&[file("a.yml", &text)], &push("main"), &config()).unwrap_err();
        assert!(reason.starts_with("a.yml: "), "{reason}");
    }

    #[test]
    fn skip_words_are_found_anywhere_in_the_message() {
        assert_eq!(skip_word("Fix typo\n\n[skip ci]"), Some("[skip ci]"));
        assert_eq!(skip_word("skip ci"), None);
    }

    #[test]
    fn the_trailer_counts_as_the_last_line_of_a_later_paragraph() {
        for says in [
            "Fix typo\n\n\nskip-checks: true\n",
            "Fix typo\n\nskip-checks:true",
            "Fix typo\r\n\r\nBecause.\r\n\r\nReviewed-by: Ada\r\nSkip-Checks: true\r\n",
        ] {
            assert_eq!(skip_word(says), Some("skip-checks: true"), "{says:?}");
        }
        for says in [
            "skip-checks: true",
            "Fix typo\nskip-checks: true",
            "Fix typo\n\nskip-checks: false",
            "Fix typo\n\nskip-checks: true\nReviewed-by: Ada",
            "Fix typo\n\nskip-checks: true of all\n",
            "Fix typo\n\nWe do not skip-checks: true",
            "",
        ] {
            assert_eq!(skip_word(says), None, "{says:?}");
        }
    }
}
