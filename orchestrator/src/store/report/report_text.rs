//! The text of reports. Pure. Titles carry the fact; summaries are Markdown of our own making in
//! which foreign text is escaped.

use std::fmt::Write as _;

use crate::{
    foreign_text::{self, clip},
    model::{
        diagnostic::Diagnostic,
        names::RefName,
        report::ReportState,
        state::{JobState, RunState},
    },
};

/// Longest title, in bytes: forges cut or refuse longer ones.
const TITLE: usize = 200;
/// Diagnostics shown in a summary; the page shows all.
const SHOWN: usize = 10;

/// What a check says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::store) struct ReportText {
    pub(in crate::store) state: ReportState,
    pub(in crate::store) title: String,
    pub(in crate::store) summary: String,
}

impl ReportText {
    pub(in crate::store) fn new(state: ReportState, title: &str, summary: String) -> Self {
        Self {
            state,
            title: one_line(title),
            summary,
        }
    }
}

/// The first line of a text, short enough for a title.
fn one_line(text: &str) -> String {
    let line = foreign_text::one_line(text.trim().lines().next().unwrap_or(""), TITLE);
    if line.len() <= TITLE {
        return line;
    }
    format!("{}…", clip(&line, TITLE - '…'.len_utf8()))
}

/// Foreign text inside Markdown: every character that Markdown, HTML or a forge could act on (links,
/// tags, mentions) becomes an entity or is escaped, and lines are joined.
pub(in crate::store) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' | '<' | '>' | '@' | '"' | '\'' => {
                let _ = write!(out, "&#{};", u32::from(c));
            }
            c if c.is_control() => out.push(' '),
            c if c.is_ascii_punctuation() => {
                out.push('\\');
                out.push(c);
            }
            c => out.push(c),
        }
    }
    out
}

/// What is known of a job when its check is written.
#[derive(Debug)]
pub(in crate::store) struct JobFacts<'a> {
    pub(in crate::store) state: JobState,
    pub(in crate::store) reason: Option<&'a str>,
    pub(in crate::store) needs: &'a [String],
    /// The node its steps run on, once they do.
    pub(in crate::store) running_on: Option<&'a str>,
    /// Attempts that ended because we failed.
    pub(in crate::store) tries: u32,
}

/// A job's check.
pub(in crate::store) fn job(facts: &JobFacts<'_>) -> ReportText {
    let reason = |default: &str| facts.reason.filter(|r| !r.is_empty()).unwrap_or(default).to_owned();
    let (state, title) = match facts.state {
        JobState::Waiting => (ReportState::Queued, format!("Waiting for {}", facts.needs.join(", "))),
        JobState::Queued if facts.tries > 0 => (ReportState::Queued, format!("Queued again: {}", reason("we failed"))),
        JobState::Queued => (ReportState::Queued, "Queued".to_owned()),
        JobState::Active => match facts.running_on {
            Some(node) => (ReportState::Running, format!("Running on {node}")),
            None => (ReportState::Queued, "Starting a machine".to_owned()),
        },
        JobState::Success => (ReportState::Success, reason("Succeeded")),
        JobState::Failure => (ReportState::Failure, reason("Failed")),
        JobState::Skipped => (ReportState::Skipped, format!("Skipped: {}", reason("not needed"))),
        JobState::Cancelled => (ReportState::Cancelled, reason("Cancelled")),
        JobState::TimedOut => (ReportState::TimedOut, reason("Timed out")),
        JobState::Error => (ReportState::Error, reason("We failed")),
    };
    let summary = match facts.reason {
        Some(reason) if facts.state.is_terminal() => escape(reason),
        _ => String::new(),
    };
    ReportText::new(state, &title, summary)
}

/// What a check says whose name stands for several jobs, each with its event and ref, the worst last: the
/// worst, by its event and ref, and every one in the summary. One alone says its own text.
pub(in crate::store) fn worst(facts: &[(&str, &RefName, &ReportText)]) -> Option<ReportText> {
    let (event, ref_name, worst) = facts.last()?;
    if facts.len() == 1 {
        return Some((*worst).clone());
    }
    let origin = |event: &str, name: &RefName| format!("{event}, {}", branch_or_tag(name));
    let mut summary = String::new();
    for (event, name, text) in facts.iter().rev().take(50) {
        let origin = escape(clip(&origin(event, name), 300));
        let _ = writeln!(summary, "- {origin}: {}", escape(&text.title));
    }
    let title = format!("{}: {}", origin(event, ref_name), worst.title);
    Some(ReportText::new(worst.state, &title, summary))
}

fn branch_or_tag(name: &RefName) -> String {
    match (name.branch(), name.tag()) {
        (Some(branch), _) => format!("branch {branch}"),
        (_, Some(tag)) => format!("tag {tag}"),
        (None, None) => name.to_string(),
    }
}

/// A workflow file that cannot be planned.
pub(in crate::store) fn unusable(path: &str, complaints: &[Diagnostic]) -> ReportText {
    let title = match complaints {
        [] => format!("{path} cannot be used"),
        [only] => only.to_string(),
        [first, rest @ ..] => format!("{first} (and {} more)", rest.len()),
    };
    let mut summary = String::new();
    for complaint in complaints.iter().take(SHOWN) {
        let _ = writeln!(summary, "- {}", escape(clip(&complaint.to_string(), 1000)));
    }
    if complaints.len() > SHOWN {
        let _ = writeln!(summary, "- and {} more", complaints.len() - SHOWN);
    }
    ReportText::new(ReportState::Error, &title, summary)
}

/// One current run of a commit: the newest attempt of a workflow's run.
#[derive(Debug, Clone)]
pub(in crate::store) struct RunFacts {
    pub(in crate::store) name: String,
    pub(in crate::store) state: RunState,
}

/// How many jobs of the current runs stand where, and whether any of them has begun in this attempt.
#[derive(Debug, Clone, Default)]
pub(in crate::store) struct JobCounts {
    pub(in crate::store) all: u64,
    pub(in crate::store) succeeded: u64,
    pub(in crate::store) skipped: u64,
    /// Ended in failure, by a time limit or by our fault.
    pub(in crate::store) failed: u64,
    pub(in crate::store) begun: bool,
}

/// A push of the commit that could not be planned, as far as it is known.
#[derive(Debug, Clone)]
pub(in crate::store) struct UnplannedFacts {
    pub(in crate::store) ref_name: Option<RefName>,
    pub(in crate::store) reason: String,
}

impl UnplannedFacts {
    fn title(&self) -> String {
        match &self.ref_name {
            Some(name) => format!("{}: {}", branch_or_tag(name), self.reason),
            None => self.reason.clone(),
        }
    }
}

/// The aggregate: red when any counted run is red or a push could not be planned, green only when something succeeded. A
/// commit of which every job was skipped is neither: `skipped` is its word.
pub(in crate::store) fn aggregate(runs: &[RunFacts], unplanned: &[UnplannedFacts], jobs: &JobCounts) -> ReportText {
    let any = |state| runs.iter().any(|run| run.state == state);
    let unusable = runs.iter().filter(|run| run.state == RunState::Error).count();
    let failed = match (unplanned, jobs.failed, unusable) {
        ([only], ..) if runs.is_empty() => only.reason.clone(),
        ([first, ..], ..) => first.title(),
        ([], 0, 0) => String::new(),
        ([], 0, 1) => "1 run ended in an error".to_owned(),
        ([], 0, n) => format!("{n} runs ended in an error"),
        ([], n, _) => format!("{n} of {} failed", jobs_word(jobs.all)),
    };
    let nothing_ran = || "no job succeeded".to_owned();
    let (state, title) = if any(RunState::Active) {
        match (jobs.begun || unusable > 0, failed.is_empty()) {
            (true, _) if !unplanned.is_empty() => (
                ReportState::Running,
                format!("{failed}; {} running", jobs_word(jobs.all)),
            ),
            (false, _) if !unplanned.is_empty() => {
                (ReportState::Queued, format!("{failed}; {} queued", jobs_word(jobs.all)))
            }
            (false, _) => (ReportState::Queued, format!("{} queued", jobs_word(jobs.all))),
            (true, true) => (ReportState::Running, format!("{} running", jobs_word(jobs.all))),
            (true, false) => (ReportState::Running, format!("{failed} so far")),
        }
    } else if any(RunState::Error) || !unplanned.is_empty() {
        (ReportState::Error, failed)
    } else if any(RunState::Failure) {
        let title = if failed.is_empty() { nothing_ran() } else { failed };
        (ReportState::Failure, title)
    } else if any(RunState::Cancelled) {
        (ReportState::Cancelled, "Cancelled".to_owned())
    } else if jobs.succeeded > 0 {
        let mut title = format!("{} succeeded", jobs_word(jobs.succeeded));
        if jobs.skipped > 0 {
            let _ = write!(title, ", {} skipped", jobs.skipped);
        }
        (ReportState::Success, title)
    } else if any(RunState::Skipped) {
        let title = match jobs.skipped {
            1 => "Nothing ran: the only job was skipped".to_owned(),
            n => format!("Nothing ran: all {n} jobs were skipped"),
        };
        (ReportState::Skipped, title)
    } else {
        (ReportState::Failure, nothing_ran())
    };
    let mut summary = String::new();
    if let ([only], []) = (unplanned, runs) {
        summary = escape(&only.reason);
    } else {
        for push in unplanned.iter().take(SHOWN) {
            let _ = writeln!(summary, "- {}", escape(clip(&push.title(), 1000)));
        }
    }
    for run in runs.iter().take(50) {
        let _ = writeln!(summary, "- {}: {}", escape(clip(&run.name, 200)), run.state);
    }
    ReportText::new(state, &title, summary)
}

/// The aggregate of a commit whose push waits for what `reason` says, and of which nothing else is known.
pub(in crate::store) fn held(reason: &str) -> ReportText {
    ReportText::new(ReportState::Queued, &format!("Waiting: {reason}"), escape(reason))
}

/// As `text`, where a push of the same commit waits: what is red stays red, and what would be final otherwise is not.
pub(in crate::store) fn with_held(text: ReportText, reason: &str) -> ReportText {
    match text.state {
        ReportState::Success | ReportState::Skipped | ReportState::Cancelled => ReportText {
            summary: format!("- {}\n{}", escape(clip(reason, 1000)), text.summary),
            ..held(reason)
        },
        _ => text,
    }
}

fn jobs_word(count: u64) -> String {
    if count == 1 {
        "1 job".to_owned()
    } else {
        format!("{count} jobs")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn runs(states: &[RunState]) -> Vec<RunFacts> {
        let fact = |state: &RunState| RunFacts {
            name: "ci".into(),
            state: *state,
        };
        states.iter().map(fact).collect()
    }

    #[test]
    fn the_aggregate_is_red_when_any_run_is_red() {
        let jobs = JobCounts {
            all: 3,
            succeeded: 2,
            failed: 1,
            begun: true,
            ..JobCounts::default()
        };
        let text = aggregate(&runs(&[RunState::Success, RunState::Failure]), &[], &jobs);
        assert_eq!(
            (text.state, text.title.as_str()),
            (ReportState::Failure, "1 of 3 jobs failed")
        );
        let text = aggregate(&runs(&[RunState::Active, RunState::Failure]), &[], &jobs);
        assert_eq!(
            (text.state, text.title.as_str()),
            (ReportState::Running, "1 of 3 jobs failed so far")
        );
    }

    #[test]
    fn a_push_that_could_not_be_planned_is_worse_than_every_run() {
        let unplanned = |name: &str| UnplannedFacts {
            ref_name: Some(name.parse().unwrap()),
            reason: "the repository is <too> large".into(),
        };
        let only = [unplanned("refs/heads/main")];
        let jobs = JobCounts {
            all: 1,
            succeeded: 1,
            begun: true,
            ..JobCounts::default()
        };
        let text = aggregate(&[], &only, &JobCounts::default());
        assert_eq!(
            (text.state, text.title.as_str(), text.summary.as_str()),
            (
                ReportState::Error,
                "the repository is <too> large",
                "the repository is &#60;too&#62; large"
            )
        );
        let text = aggregate(&runs(&[RunState::Success]), &only, &jobs);
        assert_eq!(
            (text.state, text.title.as_str()),
            (ReportState::Error, "branch main: the repository is <too> large")
        );
        let text = aggregate(&runs(&[RunState::Active]), &only, &jobs);
        assert_eq!(
            (text.state, text.title.as_str()),
            (
                ReportState::Running,
                "branch main: the repository is <too> large; 1 job running"
            )
        );
        let text = aggregate(
            &[],
            &[unplanned("refs/tags/v1"), only[0].clone()],
            &JobCounts::default(),
        );
        assert_eq!(text.title, "tag v1: the repository is <too> large");
        assert_eq!(text.summary.lines().count(), 2);
    }

    #[test]
    fn a_commit_where_nothing_ran_is_not_green() {
        let text = aggregate(&runs(&[RunState::Success]), &[], &JobCounts::default());
        assert_eq!(text.state, ReportState::Failure);
    }

    #[test]
    fn a_commit_of_skipped_jobs_has_a_word_of_its_own() {
        let mut jobs = JobCounts {
            all: 2,
            skipped: 2,
            ..JobCounts::default()
        };
        let text = aggregate(&runs(&[RunState::Skipped]), &[], &jobs);
        assert_eq!(
            (text.state, text.title.as_str(), text.summary.as_str()),
            (
                ReportState::Skipped,
                "Nothing ran: all 2 jobs were skipped",
                "- ci: skipped\n"
            )
        );
        (jobs.all, jobs.succeeded) = (3, 1);
        let text = aggregate(&runs(&[RunState::Skipped, RunState::Success]), &[], &jobs);
        assert_eq!(
            (text.state, text.title.as_str()),
            (ReportState::Success, "1 job succeeded, 2 skipped")
        );
        let text = aggregate(&runs(&[RunState::Skipped, RunState::Cancelled]), &[], &jobs);
        assert_eq!(text.state, ReportState::Cancelled);
    }

    #[test]
    fn nothing_has_begun_until_a_job_has() {
        let mut jobs = JobCounts {
            all: 1,
            ..JobCounts::default()
        };
        assert_eq!(aggregate(&runs(&[RunState::Active]), &[], &jobs).title, "1 job queued");
        jobs.begun = true;
        assert_eq!(
            aggregate(&runs(&[RunState::Active]), &[], &jobs).state,
            ReportState::Running
        );
    }

    #[test]
    fn every_state_of_a_job_has_words() {
        for state in JobState::ALL {
            let text = job(&JobFacts {
                state: *state,
                reason: None,
                needs: &["a".into(), "b".into()],
                running_on: None,
                tries: 0,
            });
            assert!(!text.title.is_empty());
            assert_eq!(text.state.is_final(), state.is_terminal(), "{state}");
        }
    }

    proptest! {
        #[test]
        fn foreign_text_cannot_become_markup(text in "\\PC{0,60}|[@<>\\[\\]()`*_\\n\\r&;#!-]{0,40}") {
            let escaped = escape(&text);
            prop_assert!(!escaped.contains(['<', '>', '@', '\n', '\r']));
            let mut previous = ' ';
            for c in escaped.chars() {
                prop_assert!(!"[]()`*_!|~".contains(c) || previous == '\\', "{escaped:?}");
                previous = if previous == '\\' { ' ' } else { c };
            }
        }

        #[test]
        fn a_title_is_one_short_line(text in "(\\PC|\\n){0,400}") {
            let title = one_line(&text);
            prop_assert!(title.len() <= TITLE && !title.contains('\n'));
        }
    }
}
