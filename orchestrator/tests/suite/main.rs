//! The tests of helios-ci from outside, one program for all of them: each of them linked takes as long as the daemon
//! itself. A module is a subject; `cargo test -p helios-ci --test suite restart::` runs one.
//!
//! All tests share one process, so none changes what belongs to it: working directory, environment, mask of modes,
//! signals. What needs a process of its own is a program of its own beside this folder, and says why in its head; what
//! needs a mount or a network of its own starts this program again in a namespace (`zones`, `guests`, `disk`).

#[path = "../support/mod.rs"]
mod support;

mod browser;
mod config_init;
mod control;
#[cfg(target_os = "linux")]
mod debian;
mod deliveries;
#[cfg(target_os = "linux")]
mod disk;
mod doctor;
mod eval;
mod flood;
mod forgejo;
mod forges;
#[cfg(target_os = "linux")]
mod guests;
mod hang;
mod hook_settings;
mod image_download;
mod image_trial;
mod job_isolation;
mod keep;
mod known_defects;
mod live;
mod local_run;
mod machined;
mod machines;
mod masks;
mod metrics;
mod network;
mod nodes;
mod planning;
mod privacy;
mod push;
mod reload;
mod reports;
mod restart;
mod rights;
#[cfg(target_os = "linux")]
mod syncs;
mod terminal;
mod tidy;
mod time;
mod validate;
mod zones;
