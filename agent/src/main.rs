//! helios-agent
fn main() {}
