//! The zone back end with real guests: on the simulated illumos host of `zones`, each zone's bhyve is an
//! emulated machine, and its network is the kernel's own, in a namespace: a stub is a bridge, a VNIC a tap, and
//! the packet filter is made from the link properties and ipfilter rules that helios-ci stored. What is proved
//! is that a machine made with our commands boots, reaches its node, and reaches nothing else; what is not: that
//! illumos's own bhyve, viona and ipfilter do as they document.

#![allow(
    clippy::disallowed_methods,
    reason = "tests start programs and namespaces as a host would"
)]

mod contract;
mod full;
mod halts;
mod keep;
mod life;
mod push;
mod reach;
mod real_guests;
mod reboot;
mod restart;
mod slots;
mod trial;

use crate::{
    support::{self, deadline},
    zones::simulated_host,
};

/// Runs the other tests of this file inside a simulated host of their own each, with real guests.
#[test]
fn zones_with_real_guests() {
    real_guests::run_inside(&[
        "guests::push::a_push_is_tested_in_zones_that_machined_keeps",
        "guests::reboot::a_host_that_reboots_in_mid_job_costs_the_job_one_machine",
        "guests::push::a_job_that_reboots_its_guest_ends_and_says_why",
        "guests::halts::a_guest_that_halts_around_its_hello_costs_a_try_and_no_job",
        "guests::full::a_guest_hears_that_the_pool_is_full_and_its_neighbours_and_the_node_go_on",
        "guests::trial::a_golden_disk_is_tried_by_machined_beside_the_machines_of_jobs",
        "guests::restart::machined_and_the_daemon_die_one_after_the_other_while_a_guest_is_in_a_step",
        "guests::reach::a_guest_reaches_its_node_and_nothing_else_of_the_host_or_its_neighbours",
        "guests::reach::a_guest_is_held_to_its_own_addresses_by_each_property_of_its_link",
        "guests::reach::a_machine_whose_link_lost_a_property_is_not_booted",
        "guests::life::a_guest_boots_its_agent_says_hello_and_nothing_of_it_stays",
        "guests::life::a_guest_that_reboots_is_started_again_in_place",
        "guests::life::a_halt_presses_the_power_button_and_waits",
        "guests::slots::a_seed_behind_a_missing_first_function_is_never_found",
        "guests::keep::a_kept_guest_is_cut_off_and_answers_on_its_console",
        "guests::contract::a_guest_lives_as_the_contract_says",
        "guests::contract::two_guests_run_and_the_death_of_one_is_noticed",
    ]);
}
