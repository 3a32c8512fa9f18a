//! Who asks: tokens, sessions, the audit log.

pub(super) mod access;
pub(super) mod audit;
pub(super) mod sessions;
