//! helios-agent: runs inside a machine, dials its node, does what it is told and reports.
//!
//! | module | idea |
//! |---|---|
//! | [`seed`] | who and where the node is, from the seed disk |
//! | [`connect`] | TLS that accepts one certificate |
//! | [`session`] | hello, welcome, resume; one connection after another |
//! | [`agent`] | commands, each carried out once; what runs |
//! | [`outbox`], [`spool`], [`block`] | events until they are acknowledged, and the memory they lie in |
//! | [`exec`], [`child`] | a step, its output and its whole tree of processes |
//! | [`files`] | walk, hash, write, read |
//! | [`facts`], [`clock`], [`power`], [`random`] | the machine |
//!
//! The agent knows nothing of workflows or forges, serves one attempt for its whole life, and is
//! never process 1.

#![allow(
    missing_docs,
    reason = "nobody outside this repository imports it, and names of fields say what a line of documentation would repeat"
)]

pub mod agent;
pub mod block;
pub mod child;
pub mod clock;
pub mod connect;
#[cfg(test)]
#[path = "../tests/common/deadline.rs"]
mod deadline;
pub mod exec;
pub mod facts;
pub mod files;
pub mod outbox;
pub mod power;
pub mod random;
pub mod seed;
pub mod session;
pub mod spool;
