//! The outbox: what a forge must hear, and its text.

pub(super) mod outbox;
pub(super) mod report_text;
pub(super) mod reports;
