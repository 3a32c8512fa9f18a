//! The zone back end with real guests: on the simulated illumos host of `tests/zones`, each zone's bhyve is an
//! emulated machine, and its network is the kernel's own, in a namespace: a stub is a bridge, a VNIC a tap, and
//! the packet filter is made from the link properties and ipfilter rules that helios-ci stored. What is proved
//! is that a machine made with our commands boots, reaches its node, and reaches nothing else; what is not: that
//! illumos's own bhyve, viona and ipfilter do as they document.

#![cfg(target_os = "linux")]
#![allow(
    clippy::disallowed_methods,
    reason = "tests start programs and namespaces as a host would"
)]

#[path = "../zones/bed.rs"]
#[allow(dead_code, reason = "shared with tests that have no guests")]
mod bed;
mod life;
mod real;
#[path = "../support/mod.rs"]
mod support;

/// Runs the other tests of this file inside a simulated host of their own each, with real guests.
#[test]
fn zones_with_real_guests() {
    real::run_inside(&["life::a_guest_boots_its_agent_says_hello_and_nothing_of_it_stays"]);
}
