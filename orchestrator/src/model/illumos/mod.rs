//! The vocabulary of an illumos host, shared by the configuration and the zone back end: what its tools
//! take as names, and what a slot's network is.

pub mod names;
pub mod network;
pub mod release;
