//! One attempt, from a claimed job to the final result: a pure state machine (`progress`) and one
//! task that performs its effects.

pub mod job;
pub mod progress;
pub mod seal;
