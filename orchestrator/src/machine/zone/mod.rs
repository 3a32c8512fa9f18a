//! bhyve zones on illumos: their typed configuration, the host's commands, and the plan of one attempt, which
//! `helios-ci machine plan` prints. There is no back end yet that carries it out; `backend: zone` is refused
//! in words.

pub mod command;
pub mod config;
pub mod plan;
