//! An attempt's log, from the agent's bytes to every reader: mask, append, index, follow, seal.
//!
//! One append-only file of checksummed records per attempt (`record`). The one [`LogWriter`] passes
//! every byte through the workflow-command parser (`command`) and the masker (`mask`) before it
//! touches the disk, so no file, reader or page ever holds a secret. Readers see bytes as soon as
//! they are written (the page cache is enough for them); the agent may forget an event only after
//! `fsync`. A finished log is compressed into independent blocks with an index
//! (`seal`) and stays seekable by record, line and byte.
//!
//! The files here use each other downwards: `store` (the front) → `writer`, `read` → `pipeline`, `seal` → `recover`, `live`,
//! `mask` → `index`, `log_dir` → `record` → `command`, `forms`, `types`, `error`.
//!
//! Files of an attempt, in `<data>/logs/<attempt>/` (0700, files 0600):
//!
//! | file | what |
//! |---|---|
//! | `meta.json` | format, generation, and the boot of the host that wrote the records |
//! | `records` | the plain records, while the log is open |
//! | `sealed` | the compressed log; its existence is the truth, the two others are then leftovers |

mod boot;
mod command;
mod error;
mod forms;
mod index;
mod live;
mod log_dir;
mod mask;
mod partial_mask;
mod pipeline;
mod read;
mod record;
mod recover;
mod seal;
mod store;
mod tail;
mod types;
mod writer;

pub use command::{Command, MAX_COMMAND, NAMES as COMMANDS};
pub use error::{BadPosition, LogError};
pub use index::StepSpan;
pub use store::LogStore;
pub use types::{Change, Channel, Effect, HeldBytes, Line, LinePage, LogRecord, LogState, LogSummary, Page, Position};
pub use writer::LogWriter;

/// The default limit of a log's file while it is written, in bytes.
pub const DEFAULT_CAP: u64 = 64 << 20;
/// A record's data and a line's bytes never exceed this.
pub const MAX_PIECE: usize = 64 << 10;
