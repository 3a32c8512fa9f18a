//! helios-agent: runs inside a machine, dials its node, executes what it is told and reports.
pub mod child;
pub mod clock;
pub mod connect;
pub mod exec;
pub mod facts;
pub mod files;
pub mod outbox;
pub mod power;
pub mod random;
pub mod seed;
pub mod spool;
