//! helios-agent: runs inside a machine, dials its node, executes what it is told and reports.
pub mod clock;
pub mod connect;
pub mod outbox;
pub mod random;
pub mod seed;
pub mod spool;
