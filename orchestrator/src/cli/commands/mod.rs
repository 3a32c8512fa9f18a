//! The subcommands, a file each.

mod complaint;
pub(super) mod config;
pub(super) mod console;
pub(super) mod control;
pub(super) mod deliveries;
pub(super) mod doctor;
pub(super) mod eval;
pub(super) mod explain;
pub(super) mod image;
pub(super) mod image_fetch;
pub(super) mod local;
pub(super) mod login_link;
pub(super) mod logs;
pub(super) mod machine;
pub(super) mod relay;
pub(super) mod runs;
pub(super) mod setup;
pub(super) mod show;
pub(super) mod token;
pub(super) mod trigger;
pub(super) mod validate;
pub(super) mod why;
