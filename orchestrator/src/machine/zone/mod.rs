//! bhyve zones on illumos: typed configuration, the host's commands, the plan of one attempt (which `helios-ci
//! machine plan` prints), and the back end that carries it out.

mod adapter;
pub mod command;
pub mod config;
mod console;
mod create;
mod datasets;
mod destroy;
pub mod export;
pub mod golden;
pub mod host;
mod index;
mod inside;
pub mod memory;
pub mod owned;
mod patience;
pub mod plan;
pub mod privileges;
mod record;
pub mod rehearsal;
pub mod scratch;
pub mod setup;
mod watch;

pub use self::{
    adapter::{Options, open},
    patience::Patience,
};
