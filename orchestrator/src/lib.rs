//! helios-ci: a self-hosted CI for illumos. One binary, the roles chosen at start; the way of the
//! data and the order in which modules may depend on each other are in docs/architecture.md.

pub mod clock;
pub mod config;
pub mod exec;
pub mod forge;
pub mod machine;
pub mod model;
pub mod queue;
pub mod reporter;
pub mod secret;
pub mod store;
