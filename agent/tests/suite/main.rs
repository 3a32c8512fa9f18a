//! The agent as its node meets it, one program for all of it.

#[path = "../common/mod.rs"]
mod common;

mod commands;
mod sessions;
