//! From a zone's configuration to a running guest: what the bhyve brand makes of the attributes, what
//! bhyve itself refuses, and the life of the zone around it.

pub mod brand;
pub mod emulated;
pub mod guest;
pub mod keeper;
pub mod life;

pub use brand::Machine;
pub use guest::{Guest, Start};
