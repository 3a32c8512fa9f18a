//! The zone back end on a simulated illumos host: a mount namespace in which the host's commands stand at their
//! real paths over a model of one host. Nothing of it boots here; what is proved is what helios-ci says to a host, in
//! which order, and what it leaves. `tests/guests` boots real guests on the same host.

mod admin;
mod bed;
mod faults;
mod guard;
mod images;
mod keep;
mod life;

/// Runs the other tests of this file inside a simulated host of their own each.
#[test]
fn zones_on_a_simulated_host() {
    bed::run_inside(&[
        "admin::from_a_bare_host_to_a_machine_that_machined_keeps",
        "admin::a_place_that_is_anothers_is_not_taken",
        "admin::addresses_of_the_host_are_not_taken",
        "images::a_golden_disk_is_imported_verified_and_rolled_back",
        "life::a_machine_is_made_run_and_removed_without_a_trace",
        "life::twenty_machines_at_once",
        "life::a_rebooted_host_keeps_what_zfs_keeps_and_all_of_it_goes",
        "life::look_alikes_are_reported_and_left_alone",
        "keep::a_kept_machine_is_cut_off_and_its_console_is_free",
        "keep::a_kept_machine_that_stops_or_loses_its_host_goes_without_a_trace",
        "guard::a_running_machine_without_protection_loses_its_power",
        "guard::what_only_a_person_can_mend_is_named",
        "faults::a_guest_that_dies_at_once_is_seen_with_its_last_words",
        "faults::a_full_pool_is_said_and_costs_nothing",
        "faults::a_disk_that_stays_busy_is_quarantined",
        "faults::a_zone_that_hangs_is_said_and_goes_when_it_can",
        "faults::a_command_that_fails_leaves_nothing",
        "faults::a_command_that_did_it_and_says_it_failed_leaves_nothing",
        "faults::a_command_that_is_killed_leaves_nothing",
    ]);
}
