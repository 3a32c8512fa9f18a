//! What every connection, request and answer passes: listeners, limits, proxies, headers, problems.

pub mod headers;
pub mod limits;
pub mod linger;
pub mod problem;
pub mod proxies;
pub mod range;
pub mod serve;
