//! What a host does, tried before any job depends on it: with the product's own code, under scratch names, and
//! cleaned up. [`configuration::rehearse`] asks zonecfg and the brand about one image's machine; [`host::rehearse`] does
//! one whole life of a machine that nobody asked for.

pub mod configuration;
pub mod host;
mod steps;

pub use self::steps::{STEPS, Step};
