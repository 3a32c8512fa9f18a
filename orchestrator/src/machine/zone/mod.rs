//! bhyve zones on illumos: typed configuration, the host's commands, the plan of one attempt (which `helios-ci
//! machine plan` prints), and the back end that carries it out.

mod adapter;
pub mod command;
pub mod config;
mod console;
mod create;
mod destroy;
pub mod export;
pub mod golden;
mod host;
mod inside;
pub mod memory;
pub mod plan;
mod record;
pub mod scratch;
pub mod setup;

pub use self::adapter::{Options, open};
