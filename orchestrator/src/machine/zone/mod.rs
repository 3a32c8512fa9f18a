//! bhyve zones on illumos: typed configuration, the host's commands, the plan of one attempt (which `helios-ci
//! machine plan` prints), and the back end that carries it out.

pub mod command;
pub mod config;
pub mod export;
pub mod golden;
pub mod host;
pub mod life;
pub mod owned;
pub mod setup;

pub use self::{
    host::timeout_scale::TimeoutScale,
    life::adapter::{Options, open},
};
