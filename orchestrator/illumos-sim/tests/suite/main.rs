//! The simulator from outside: its programs as processes, beside what was seen of illumos, and under a real kernel.

#[path = "../../../tests/support/deadline.rs"]
mod deadline;
#[path = "../../../tests/support/prerequisites.rs"]
mod prerequisites;

mod brand_conformance;
mod programs;
mod slots;
mod zonecfg_conformance;
