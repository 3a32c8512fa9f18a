//! The zone back end's ZFS half on real OpenZFS (`make openzfs`): this program boots a guest in which ZFS is loaded, and
//! runs its own ignored tests there. Where the guest was not built this says so and passes.
//!
//! The guest is emulated and this program not optimised, so disks are small: a megabyte takes a second to digest.
//! `HELIOS_CI_OPENZFS_TESTS=inside::answers` runs some of them only.
//!
//! A program of its own beside `suite`: it travels into the guest's memory, with the libraries that it needs.
//!
//! illumos remains the truth; what OpenZFS 2.1 on Linux does or says otherwise stands as a comment in the test that
//! met it. What it cannot prove: illumos's devices, which appear when they are looked up. On Linux volumes are
//! `/dev/zdN`; inside the guest the tests lay the links below `/dev/zvol/rdsk` themselves (`inside/links.rs`).

#![cfg(target_os = "linux")]
#![allow(clippy::disallowed_methods, reason = "tests start programs as a person would")]

#[path = "../support/deadline.rs"]
mod deadline;
mod guest;
mod inside;
#[path = "../support/prerequisites.rs"]
mod prerequisites;

#[test]
fn the_zone_back_end_on_real_openzfs() {
    let Some(image) = guest::image() else { return };
    let only = std::env::var("HELIOS_CI_OPENZFS_TESTS").unwrap_or_else(|_| "inside::".to_owned());
    let mut arguments: Vec<&str> = only.split_whitespace().collect();
    arguments.extend(["--ignored", "--nocapture", "--test-threads=1"]);
    let said = guest::run(&image, &arguments);
    let passed = said.lines().find_map(|line| line.strip_prefix("test result: ok. "));
    let passed: usize = passed
        .and_then(|rest| rest.split(' ').next()?.parse().ok())
        .unwrap_or_else(|| panic!("the tests inside the guest failed:\n{said}"));
    assert!(passed > 0 && said.contains("init: the program ended with 0"), "{said}");
}
