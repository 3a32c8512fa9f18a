//! The workflow language as one table: what may stand where, what it is for, which contexts and functions its
//! expressions may use, and whether helios-ci acts on it. The strict walk (`check`), `helios-ci explain` and the
//! reference in docs/workflows.md all read this table and nothing else.
//!
//! - `definition`: the shape of a row
//! - `allowed`: contexts and functions
//! - `events`, `workflow`, `job`, `step`: the rows

mod allowed;
mod common;
mod definition;
mod events;
mod job;
mod step;
mod workflow;

pub use allowed::Allowed;
pub use definition::{Definition, Kind, Mapping};
pub(super) use events::{EVENTS, STARTING};
pub use workflow::WORKFLOW;

/// What stands below `on`.
pub(super) fn on() -> &'static Definition {
    &events::ON
}
