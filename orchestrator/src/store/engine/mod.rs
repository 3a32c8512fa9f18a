//! The database itself: connections, migrations, transactions, the one writer, and which changes of state are legal.

pub(super) mod db;
pub(super) mod error;
mod hints;
pub(super) mod inspect;
#[cfg(test)]
pub(super) mod plans;
pub(super) mod server_clock;
pub(super) mod transitions;
pub(super) mod tx;
pub(super) mod writer;
