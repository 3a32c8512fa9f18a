//! Reads for pages and API; nothing here changes a row.

pub(super) mod counts;
pub(super) mod delivery_list;
pub(super) mod pages;
pub(super) mod why;
