//! One machine from its plan to its removal.

pub(super) mod adapter;
pub(super) mod console;
pub(super) mod create;
pub(super) mod datasets;
pub(super) mod destroy;
pub mod plan;
pub(super) mod record;
pub(super) mod zone_files;
pub(super) mod zone_list;
