//! The pages, and the texts, shapes and files that they are made of.

pub mod asset_file;
pub mod assets;
pub mod deliveries;
pub mod job;
pub mod runs;
pub mod status;
pub mod view;
