//! The domain: identities, names, states, plans, and what happens next in a run. Pure: no I/O, no
//! clock, and it knows no other module.

pub mod advance;
pub mod diagnostic;
pub mod ids;
pub mod illumos;
pub mod names;
pub mod payload;
pub mod person;
pub mod plan;
pub mod report;
pub mod size;
pub mod state;
pub mod text;
pub mod trigger;
