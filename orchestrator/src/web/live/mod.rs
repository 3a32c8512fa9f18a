//! Logs while they grow: the stream of a run's viewers, lines as HTML or text, and what a terminal would leave of them.

pub mod ansi;
pub mod log_text;
pub mod log_view;
pub mod stream;
pub mod utf8;
