//! One attempt of a job: claim, lease, machine, steps, and the node that holds it.

pub(super) mod attempts;
pub(super) mod claim;
pub(super) mod ending;
pub(super) mod keeping;
pub(super) mod machines;
pub(super) mod nodes;
pub(super) mod overdue_removals;
pub(super) mod progress;
pub(super) mod steps;
