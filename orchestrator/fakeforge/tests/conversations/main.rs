//! The forge as its callers meet it: over HTTP, with git, and as a program.

#![allow(
    clippy::disallowed_methods,
    reason = "tests run git and the program as a person would"
)]

mod common;
#[path = "../../../tests/support/deadline.rs"]
mod deadline;
mod deliveries;
mod forgejo;
mod github;
mod merging;
mod moves;
mod outages;
#[path = "../../../tests/support/prerequisites.rs"]
mod prerequisites;
mod program;
mod pulls;
mod pushes;
mod rights;
mod statuses;
