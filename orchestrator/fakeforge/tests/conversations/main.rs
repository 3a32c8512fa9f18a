//! The forge as its callers meet it: over HTTP, with git, and as a program.

#![allow(
    clippy::disallowed_methods,
    reason = "tests run git and the program as a person would"
)]

mod common;
#[path = "../../../tests/support/deadline.rs"]
mod deadline;
mod forgejo;
mod github;
#[path = "../../../tests/support/prerequisites.rs"]
mod prerequisites;
mod program;
