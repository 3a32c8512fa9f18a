//! illumos's host commands over a model of one host, so that what helios-ci says to an illumos host can
//! be tested where there is none. It is written from what the commands accept, print and return, not from
//! what helios-ci happens to send: options it does not know are refused, and every refusal has its text.
//! Test-only; never shipped.
#![allow(
    missing_docs,
    reason = "nobody outside this repository imports it, and names of fields say what a line of documentation would repeat"
)]
#![allow(
    clippy::disallowed_methods,
    reason = "a test double outside the product: it waits and replaces itself as the real programs do"
)]

mod act;
pub mod boot;
pub mod cli;
pub mod console;
pub mod faults;
pub mod files;
pub mod host;
pub mod kernel;
pub mod mount;
pub mod out;
pub mod ports;
pub mod program;
pub mod sim;
pub mod state;
pub mod table;
pub mod trace;
pub mod tty;
pub mod volume;
pub mod xml;
pub mod zonecfg;

pub use out::Out;
pub use sim::{Ended, Sim};
pub use state::State;
