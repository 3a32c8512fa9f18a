//! What puts the daemon's parts together: serve, machined, and the daemon inside `run`.

pub(super) mod backend;
pub(super) mod data_dir;
pub(super) mod machined;
pub(super) mod parts;
pub(super) mod serve;
pub(super) mod signals;
