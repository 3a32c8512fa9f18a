//! bhyve zones on illumos: so far their typed configuration and the commands of the `zone` crate. There
//! is no back end yet that uses them on a host; `backend: zone` is refused in words.

pub mod adm;
pub mod config;
