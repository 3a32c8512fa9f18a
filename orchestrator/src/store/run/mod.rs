//! Runs and their jobs, from the plan to the last state.

pub(super) mod cancel;
pub(super) mod cancel_request;
pub(super) mod create;
pub(super) mod job_version;
pub(super) mod jobs;
pub(super) mod rerun;
pub(super) mod runs;
pub(super) mod waiting;
