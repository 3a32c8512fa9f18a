//! The zone back end on a simulated illumos host: a mount namespace in which the host's commands stand at their
//! real paths over a model of one host. Nothing of it boots; what is proved is what helios-ci says to a host, in
//! which order, and what it leaves.

mod admin;
mod bed;
mod faults;
mod images;
mod life;

/// Runs the other tests of this file inside a simulated host of their own each.
#[test]
fn zones_on_a_simulated_host() {
    bed::run_inside(&[
        "admin::from_a_bare_host_to_a_machine_that_machined_keeps",
        "admin::a_place_that_is_anothers_is_not_taken",
        "images::a_golden_disk_is_imported_verified_and_rolled_back",
        "images::an_import_that_is_killed_anywhere_is_made_good_by_the_next",
        "images::an_import_in_which_any_command_goes_wrong_is_made_good_by_the_next",
        "images::one_import_at_a_time_and_never_beside_the_last_command_of_another",
        "images::no_room_for_an_image_is_said_and_nothing_is_kept",
        "life::a_machine_is_made_run_and_removed_without_a_trace",
        "life::twenty_machines_at_once",
        "life::a_rebooted_host_keeps_what_zfs_keeps_and_all_of_it_goes",
        "life::look_alikes_are_reported_and_left_alone",
        "faults::a_guest_that_dies_at_once_is_seen_with_its_last_words",
        "faults::a_full_pool_is_said_and_costs_nothing",
        "faults::a_disk_that_stays_busy_is_quarantined",
        "faults::a_zone_that_hangs_is_said_and_goes_when_it_can",
        "faults::a_command_that_fails_leaves_nothing",
        "faults::a_command_that_did_it_and_says_it_failed_leaves_nothing",
        "faults::a_command_that_is_killed_leaves_nothing",
    ]);
}
