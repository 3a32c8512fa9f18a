//! Logs while they grow: the stream of a run's viewers, lines as HTML or text, and what a terminal would leave of them.

pub mod ansi;
pub(in crate::web) mod cursor;
mod job_watch;
pub mod log_text;
pub mod log_view;
pub mod page_stream;
pub mod record_stream;
mod stream;
pub mod utf8;

pub use job_watch::poll;
