//! The outbox: what a forge is to show, and its text.

pub(super) mod aggregate;
pub(super) mod held;
pub(super) mod outbox;
pub(super) mod report_text;
pub(super) mod reports;
