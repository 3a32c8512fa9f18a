//! Which contexts and functions an expression may use. What may be used in a value may be used in all that is below it.

/// The contexts, in the order in which they become known.
const CONTEXTS: [&str; 12] = [
    "github", "inputs", "vars", "needs", "strategy", "matrix", "secrets", "steps", "job", "jobs", "runner", "env",
];

/// The functions that exist at some places only.
const FUNCTIONS: [&str; 5] = ["always", "cancelled", "failure", "success", "hashFiles"];

/// A set of contexts and special functions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowed {
    contexts: u16,
    functions: u8,
}

impl Allowed {
    /// Nothing: expressions cannot be used.
    pub const NONE: Self = Self {
        contexts: 0,
        functions: 0,
    };

    const fn contexts_of(contexts: u16) -> Self {
        Self { contexts, functions: 0 }
    }

    /// `github`, `inputs` and `vars`, which are known before any job.
    pub const RUN: Self = Self::contexts_of(0b111);
    /// And `needs`.
    pub const NEEDS: Self = Self::contexts_of(0b1111);
    /// And the job's own `strategy` and `matrix`.
    pub const JOB: Self = Self::contexts_of(0b11_1111);
    /// `secrets`.
    pub const SECRETS: Self = Self::contexts_of(1 << 6);
    /// `env`.
    pub const ENV: Self = Self::contexts_of(1 << 11);
    /// `jobs`: of a called workflow.
    pub const JOBS: Self = Self::contexts_of(1 << 9);
    /// `steps`, `job`, `runner` and `env`: what is known once a job runs.
    pub const RUNNING: Self = Self::contexts_of(1 << 7 | 1 << 8 | 1 << 10 | 1 << 11);
    /// `hashFiles`.
    pub const HASH_FILES: Self = Self {
        contexts: 0,
        functions: 1 << 4,
    };
    /// `always`, `cancelled`, `failure` and `success`.
    pub const STATUS: Self = Self {
        contexts: 0,
        functions: 0b1111,
    };
    /// All that a step's values may use.
    pub const STEP: Self = Self::JOB.and(Self::SECRETS).and(Self::RUNNING).and(Self::HASH_FILES);

    /// Both together.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self {
            contexts: self.contexts | other.contexts,
            functions: self.functions | other.functions,
        }
    }

    /// Whether expressions cannot be used at all.
    #[must_use]
    pub const fn is_none(self) -> bool {
        self.contexts == 0
    }

    /// The names of the contexts.
    pub fn contexts(self) -> impl Iterator<Item = &'static str> {
        named(&CONTEXTS, self.contexts)
    }

    /// The names of the special functions.
    pub fn functions(self) -> impl Iterator<Item = &'static str> {
        named(&FUNCTIONS, u16::from(self.functions))
    }
}

fn named(names: &'static [&'static str], set: u16) -> impl Iterator<Item = &'static str> {
    names
        .iter()
        .enumerate()
        .filter(move |(at, _)| set & (1 << at) != 0)
        .map(|(_, name)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_have_the_names_that_github_documents() {
        let of = |set: Allowed| set.contexts().chain(set.functions()).collect::<Vec<_>>().join(" ");
        assert_eq!(of(Allowed::RUN), "github inputs vars");
        assert_eq!(of(Allowed::RUN.and(Allowed::JOBS)), "github inputs vars jobs");
        assert_eq!(
            of(Allowed::NEEDS.and(Allowed::STATUS)),
            "github inputs vars needs always cancelled failure success"
        );
        assert_eq!(
            of(Allowed::STEP),
            "github inputs vars needs strategy matrix secrets steps job runner env hashFiles"
        );
        assert!(Allowed::NONE.is_none() && !Allowed::ENV.is_none());
    }
}
