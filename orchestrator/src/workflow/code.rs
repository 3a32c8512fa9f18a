//! The kinds of complaints: each has a stable name, which people search for, filter by and ask `helios-ci explain`
//! about. A name is never given to something else; a row that is no longer said may go.

use crate::{model::diagnostic::Severity, yaml::FaultKind};

macro_rules! codes {
    ($($severity:ident { $($code:ident $name:literal $about:literal)* })*) => {
        /// What is wrong with a workflow file.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Code {
            $($(#[doc = $about] $code,)*)*
        }

        impl Code {
            /// All of them, as the documentation lists them.
            pub const ALL: &'static [Self] = &[$($(Self::$code,)*)*];

            /// Its stable name.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $($(Self::$code => $name,)*)* }
            }

            /// What it means for the file.
            #[must_use]
            pub fn severity(self) -> Severity {
                match self { $($(Self::$code => Severity::$severity,)*)* }
            }

            /// What it is about, in one sentence.
            #[must_use]
            pub fn about(self) -> &'static str {
                match self { $($(Self::$code => $about,)*)* }
            }
        }
    };
}

codes! {
    Error {
        NotUtf8 "not-utf8" "The file is not UTF-8 text."
        Syntax "yaml-syntax" "The text is not YAML, or not one YAML document."
        DuplicateKey "duplicate-key" "A key stands twice in one mapping; which of them counts would be a guess."
        MergeKey "merge-key" "The merge key `<<` of YAML 1.1. Anchors and aliases of whole values are fine."
        Tag "yaml-tag" "A tag that is not one of YAML's core schema, or that does not fit its value."
        Number "yaml-number" "A hexadecimal or octal number of more than 32 bits."
        TooLarge "too-large" "The file, or what its aliases expand to, is larger than a workflow file may be."
        TooDeep "too-deep" "Lists and mappings nest deeper than a workflow file may."
        UnknownKey "unknown-key" "A key that does not exist at this place."
        MissingKey "missing-key" "A key that must be given is not."
        ConflictingKeys "conflicting-keys" "Two keys that exclude each other."
        WrongType "wrong-type" "A list where a mapping is meant, a text where a number is meant, and the like."
        UnknownValue "unknown-value" "A word that is not one of those that may stand at this place."
        EmptyValue "empty-value" "Nothing stands where something must."
        ExpressionNotAllowed "expression-not-allowed" "An expression (`${{ … }}`) at a place that is read before expressions are."
        ExpressionSyntax "expression-syntax" "An expression that is empty, is not closed, or is a directive inside a text."
        UnknownEvent "unknown-event" "An event that does not exist."
        BadFilter "bad-filter" "A pattern for branches, tags or paths that can never be used."
        BadSchedule "bad-schedule" "A cron text that is not five fields of POSIX cron."
        BadInput "bad-input" "An input of a manual or called workflow that contradicts itself."
        BadMatrix "bad-matrix" "A matrix that gives no job, too many, or excludes what it does not have."
        BadId "bad-id" "A job or step id with other characters than letters, digits, `-` and `_`, or a reserved one."
        DuplicateId "duplicate-id" "Two jobs, or two steps of one job, whose ids differ at most in case."
        UnknownNeed "unknown-need" "`needs` names a job that does not exist."
        NeedsCycle "needs-cycle" "Jobs that wait for each other."
        BadAction "bad-action" "`uses` is none of `owner/name@version`, `./folder` and `docker://image`."
        BadWorkflowCall "bad-workflow-call" "A job's `uses` is neither `owner/name/.github/workflows/file.yml@version` nor `./.github/workflows/file.yml`."
        UnknownShell "unknown-shell" "A shell that is not built in and has no `{0}` for the script's file."
    }
    Unsupported {
        UnsupportedKdl "unsupported-kdl" "Workflows written in KDL."
        UnsupportedExpression "unsupported-expression" "Expressions (`${{ … }}`)."
        UnsupportedIf "unsupported-if" "Conditions of jobs and steps (`if`)."
        UnsupportedMatrix "unsupported-matrix" "Jobs that a matrix multiplies (`strategy`)."
        UnsupportedContainer "unsupported-container" "Containers: a job is a machine of its own, without Docker."
        UnsupportedCall "unsupported-workflow-call" "Jobs that call another workflow (`uses`)."
        UnsupportedAction "unsupported-action" "Actions other than the built-in `actions/checkout`."
        UnsupportedActionInput "unsupported-action-input" "An input that the built-in action does not have."
        UnsupportedShell "unsupported-shell" "Shells other than `bash`, `sh` and `python`."
        UnsupportedRunsOn "unsupported-runs-on" "`runs-on` other than one label and perhaps a size."
        UnsupportedPermissions "unsupported-permissions" "`permissions`: no token of the forge reaches a machine."
        UnsupportedConcurrency "unsupported-concurrency" "`concurrency` groups."
        UnsupportedDefaults "unsupported-defaults" "`defaults` for `run` steps."
        UnsupportedOutputs "unsupported-outputs" "`outputs` of jobs."
        UnsupportedEnvironment "unsupported-environment" "Deployment `environment`s."
        UnsupportedContinue "unsupported-continue-on-error" "`continue-on-error` of jobs; steps may have it."
        UnsupportedInputs "unsupported-inputs" "`inputs` of manually started workflows."
        UnsupportedPaths "unsupported-paths" "Filters of pushes by changed `paths`."
        UnsupportedBackground "unsupported-background" "Steps that run beside others."
        UnsupportedKey "unsupported-key" "Another key that GitHub knows and helios-ci does not act on yet."
        UnsupportedDirectory "unsupported-directory" "A directory that is not below the workspace."
        UnsupportedTimeout "unsupported-timeout" "A time limit that is not a whole number of minutes, or is longer than 35 days."
        UnsupportedName "unsupported-name" "A name of several lines, a very long one, or one that two jobs share: each job is a check of its own on the forge."
        UnsupportedVariable "unsupported-variable" "A name or value that cannot stand in a program's environment."
        UnsupportedSize "unsupported-size" "More jobs, steps or text than helios-ci takes."
        UnsupportedEmptyRun "unsupported-empty-run" "A `run` step with nothing in it."
        NoSteps "no-steps" "A job without steps: GitHub reads such a file and then has nothing to run."
    }
    Warning {
        NoRunsOn "no-runs-on" "A job without `runs-on`: it gets this server's default label, and GitHub refuses it."
        EmptyMapping "empty-mapping" "A key with nothing below it."
        LooseType "loose-type" "GitHub's service takes this value, although its own rules do not name it."
        InputDefault "input-default" "A default that is not one of the options of its choice."
        IgnoredKey "ignored-key" "A key that GitHub's service takes at this place and does nothing with."
        EventNeverStarts "event-never-starts" "An event that starts no run here: the file is fine, and that event passes by."
        OnlyNegative "only-negative-patterns" "A filter of which every pattern begins with `!` lets nothing through."
        RepeatedNeed "repeated-need" "`needs` names a job twice."
        AlwaysTrue "if-always-true" "An `if` with text outside of `${{ … }}`: the whole is then a text that is not empty, which is true."
        ScriptInjection "script-injection" "A script that holds text which outsiders choose; whoever opens a pull request could run commands in it."
        UnpinnedAction "unpinned-action" "An action of somebody else's by a branch or tag, which its owner can move; a full commit id cannot be moved."
        DeprecatedCommand "deprecated-command" "A workflow command that GitHub has replaced by a file."
        UnreachableJob "unreachable-job" "A job that never runs, as it or one that it needs has an `if` that is never true."
    }
}

impl Code {
    /// The one of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.name() == name)
    }
}

impl From<FaultKind> for Code {
    fn from(kind: FaultKind) -> Self {
        match kind {
            FaultKind::Syntax => Self::Syntax,
            FaultKind::DuplicateKey => Self::DuplicateKey,
            FaultKind::MergeKey => Self::MergeKey,
            FaultKind::Tag => Self::Tag,
            FaultKind::Number => Self::Number,
            FaultKind::TooLarge => Self::TooLarge,
            FaultKind::TooDeep => Self::TooDeep,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_unique_and_say_what_they_mean_for_the_file() {
        let names: HashSet<&str> = Code::ALL.iter().map(|code| code.name()).collect();
        assert_eq!(names.len(), Code::ALL.len());
        for code in Code::ALL {
            assert_eq!(Code::named(code.name()), Some(*code));
            assert!(code.about().ends_with('.'), "{code:?}");
            let unsupported = code.name().starts_with("unsupported-") || *code == Code::NoSteps;
            assert_eq!(unsupported, code.severity() == Severity::Unsupported, "{code:?}");
        }
    }
}
