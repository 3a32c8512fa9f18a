//! What came in: deliveries, the triggers that they became, and what a catch-up has compared.

pub(super) mod comparisons;
pub(super) mod deliveries;
mod set_aside;
pub(super) mod triggers;
