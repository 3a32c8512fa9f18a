//! What a job's log says of its machine and of its end. The log counts steps and nothing else, so these lines are
//! stored with step 0; whoever shows a log puts them under headings of their own, by how they begin.

/// A part of a job's log that is no step's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Section {
    /// How its machine was made.
    Machine,
    /// What became of the job.
    End,
}

/// The machine that is made.
pub(super) const MACHINE: &str = "Machine ";
/// What it is to run is not here.
pub(super) const FETCHING: &str = "The commit is not on this node";
/// Branches and tags that a checkout of all does not get.
pub(super) const NO_OTHER_REFS: &str = "Without a forge no other branch or tag than the run's own is brought.";
/// Branches and tags whose names are not taken.
pub(super) const REFS_LEFT_OUT: &str = "Left out because of their names: ";
/// Its clock.
pub(super) const CLOCK: &str = "The machine's clock was off by";
/// The job's result.
pub(super) const ENDED: &str = "Job ended: ";
/// The attempt has none.
pub(super) const FAILED: &str = "The machine failed, not the job: ";
/// Processes that outlived their steps.
pub(super) const LEFT: &str = "Still running, and ended with the job: ";
/// The last of a lost machine's console.
pub(super) const CONSOLE: &str = "console: ";

impl Section {
    /// The part to which a line of ours that is stored with step 0 belongs; `None` for the step itself.
    #[must_use]
    pub fn of(line: &[u8]) -> Option<Self> {
        let begins = |words: &[&str]| words.iter().any(|word| line.starts_with(word.as_bytes()));
        if begins(&[MACHINE, FETCHING, NO_OTHER_REFS, REFS_LEFT_OUT, CLOCK]) {
            Some(Self::Machine)
        } else if begins(&[LEFT, ENDED, FAILED, CONSOLE]) {
            Some(Self::End)
        } else {
            None
        }
    }
}
