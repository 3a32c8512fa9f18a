//! helios-ci: a self-hosted CI for illumos. One binary, the roles chosen at start; the way of the
//! data and the order in which modules may depend on each other are in docs/architecture.md.

pub mod agent_api;
pub mod cli;
pub mod clock;
pub mod config;
mod connector;
pub mod daemon;
#[cfg(test)]
#[path = "../tests/support/deadline.rs"]
mod deadline;
pub mod digest;
pub mod driver;
pub mod error_chain;
pub mod exec;
pub mod expression;
pub mod failpoint;
pub mod files;
pub mod foreign_text;
pub mod forge;
pub mod images;
pub mod intake;
pub mod janitor;
pub mod logs;
pub mod machine;
pub mod model;
pub mod node;
pub mod planner;
#[cfg(test)]
#[path = "../tests/support/prerequisites.rs"]
mod prerequisites;
pub mod queue;
pub mod reporter;
pub mod scheduler;
pub mod seal;
pub mod secret;
pub mod source;
pub mod store;
pub mod telemetry;
pub mod web;
pub mod workflow;
pub mod yaml;
