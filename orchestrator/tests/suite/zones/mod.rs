//! The zone back end on a simulated illumos host: a mount namespace in which the host's commands stand at their
//! real paths over a model of one host. Nothing of it boots here; what is proved is what helios-ci says to a host, in
//! which order, and what it leaves. `guests` boots real guests on the same host.

mod admin;
mod budget;
mod changed_hosts;
mod doctor;
mod expected_state;
mod false_success;
mod faults;
mod foreign_objects;
mod guard;
mod images;
mod keep;
mod life;
mod machined_killed;
mod names;
mod plans;
mod random_faults;
mod rehearsal;
pub mod simulated_host;
mod unusual_hosts;

use std::{collections::BTreeSet, path::Path};

use crate::support::deadline;

/// Runs the other tests of this file inside a simulated host of their own each.
#[test]
fn zones_on_a_simulated_host() {
    // The longest first.
    let mut ran = simulated_host::run_inside(&[
        "zones::admin::from_a_bare_host_to_a_machine_that_machined_keeps",
        "zones::machined_killed::machined_may_be_killed_during_any_command",
        "zones::machined_killed::machined_may_be_killed_during_any_other_command",
        "zones::faults::a_command_that_hangs_leaves_nothing",
        "zones::faults::a_command_that_hangs_after_it_acted_leaves_nothing",
        "zones::faults::a_command_that_fails_leaves_nothing",
        "zones::faults::a_command_that_did_it_and_says_it_failed_leaves_nothing",
        "zones::false_success::an_act_that_was_not_done_is_found_out",
        "zones::faults::a_command_that_is_killed_before_it_acts_leaves_nothing",
        "zones::faults::a_command_that_is_killed_leaves_nothing",
        "zones::faults::an_install_a_removal_or_a_halt_killed_midway_leaves_nothing",
        "zones::faults::zoneadmd_goes_on_without_its_client_and_leaves_nothing",
        "zones::admin::a_place_that_is_anothers_is_not_taken",
        "zones::admin::only_root_keeps_zones",
        "zones::admin::a_brand_that_ignores_an_attribute_is_told_by_doctor",
        "zones::admin::setup_makes_rules_last_and_leaves_anothers_policy_alone",
        "zones::admin::setup_bounds_the_machines_mounts_the_zones_and_wants_their_parents_roots",
        "zones::machined_killed::machined_told_to_stop_ends_what_has_begun",
        "zones::machined_killed::twenty_attempts_at_once_over_the_socket",
        "zones::random_faults::twenty_machines_in_a_storm_leave_nothing",
        "zones::budget::a_life_costs_what_was_budgeted",
        "zones::budget::twenty_that_wait_cost_one_look_a_second",
        "zones::unusual_hosts::a_life_on_every_odd_host_leaves_nothing",
        "zones::changed_hosts::what_a_boot_environment_brings_back_goes",
        "zones::changed_hosts::a_damaged_configuration_is_said_and_hides_no_other_machine",
        "zones::changed_hosts::nothing_is_made_below_a_dataset_that_is_not_mounted",
        "zones::changed_hosts::a_machine_that_cannot_be_seen_for_a_while_is_not_lost",
        "zones::changed_hosts::a_halt_during_boot_is_seen_as_one",
        "zones::names::every_value_is_carried_unchanged_or_refused_by_name",
        "zones::names::no_value_becomes_syntax_of_zonecfg",
        "zones::admin::addresses_of_the_host_are_not_taken",
        "zones::images::a_golden_disk_is_imported_verified_and_rolled_back",
        "zones::images::an_import_that_is_killed_anywhere_is_made_good_by_the_next",
        "zones::images::an_import_in_which_any_command_goes_wrong_is_made_good_by_the_next",
        "zones::images::one_import_at_a_time_and_never_beside_the_last_command_of_another",
        "zones::images::no_room_for_an_image_is_said_and_nothing_is_kept",
        "zones::images::a_raw_volume_has_no_end_of_file_and_whole_sectors_only",
        "zones::images::a_disk_that_cannot_be_read_is_said_to_be_that_and_no_other_thing",
        "zones::images::a_golden_disk_is_fetched_from_an_address_and_no_download_stays",
        "zones::life::a_machine_is_made_run_and_removed_without_a_trace",
        "zones::life::twenty_machines_at_once",
        "zones::life::a_rebooted_host_keeps_what_zfs_keeps_and_all_of_it_goes",
        "zones::foreign_objects::each_is_named_and_none_is_touched",
        "zones::foreign_objects::a_zone_of_anothers_keeps_the_dataset_that_it_lies_in",
        "zones::life::look_alikes_are_reported_and_left_alone",
        "zones::keep::a_kept_machine_is_cut_off_and_its_console_is_free",
        "zones::keep::a_kept_machine_that_stops_or_loses_its_host_goes_without_a_trace",
        "zones::faults::a_guest_that_bhyvectl_cannot_end_is_killed",
        "zones::guard::a_running_machine_without_protection_loses_its_power",
        "zones::doctor::a_sweep_leaves_doctors_links_alone",
        "zones::doctor::a_host_that_lacks_something_is_told_what_and_how_to_mend_it",
        "zones::doctor::zones_that_are_stuck_are_named_and_stop_nothing",
        "zones::guard::what_only_a_person_can_mend_is_named",
        "zones::faults::a_guest_that_dies_at_once_is_seen_with_its_last_words",
        "zones::faults::a_full_pool_is_said_and_costs_nothing",
        "zones::faults::a_pool_that_fills_meanwhile_is_said_and_costs_nothing",
        "zones::faults::a_disk_that_stays_busy_is_quarantined",
        "zones::faults::a_zone_that_hangs_is_said_and_goes_when_it_can",
    ]);
    let room = simulated_host::Room {
        namespaces: &["--net"],
        ..simulated_host::Room::default()
    };
    let rehearsals = [
        "zones::rehearsal::what_a_killed_one_left_goes_with_the_next",
        "zones::rehearsal::each_step_says_when_the_host_does_otherwise",
        "zones::rehearsal::what_a_host_does_otherwise_is_said_and_cleaned_up",
        "zones::rehearsal::every_step_is_seen_and_nothing_is_left_or_touched",
    ];
    ran.extend(simulated_host::run_in(&rehearsals, rehearsals.len(), room));
    // What a person types, at the console of a kept machine.
    ran.remove("zlogin");
    // pfexec becomes what it runs.
    let mut documented = documented();
    documented.remove("pfexec");
    assert_eq!(
        ran, documented,
        "what ran on simulated hosts, and what docs/operations.md says that runs"
    );
}

/// The programs that the documentation names as those of machined and of the administrator's commands.
fn documented() -> BTreeSet<String> {
    let text = include_str!("../../../../docs/operations.md");
    let (_, rest) = text.split_once("The programs that machined, ").expect("the list");
    let (list, _) = rest.split_once("\n\n").expect("its end");
    let words = list.split('`').skip(1).step_by(2);
    words
        .filter(|word| illumos_sim::program::NAMES.contains(word))
        .map(str::to_owned)
        .collect()
}

fn sources(dir: &Path, text: &mut String) {
    for entry in std::fs::read_dir(dir).expect("a folder").flatten() {
        if entry.file_type().expect("a type").is_dir() {
            sources(&entry.path(), text);
        } else {
            text.push_str(&std::fs::read_to_string(entry.path()).expect("a source"));
        }
    }
}

/// What the zone back end could run at all is what is documented, and nobody gets a right to it but who keeps zones
/// for debugging.
#[test]
fn the_programs_are_those_of_the_documentation() {
    let mut text = String::new();
    sources(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("src/machine/zone"),
        &mut text,
    );
    let named: BTreeSet<String> = text
        .split('"')
        .filter(|word| !word.contains(' '))
        .filter_map(|word| {
            let dirs = [
                "/sbin/",
                "/usr/sbin/",
                "/usr/bin/",
                "/usr/lib/zones/",
                "/usr/lib/brand/bhyve/",
            ];
            dirs.iter().find_map(|dir| word.strip_prefix(dir)).map(str::to_owned)
        })
        .collect();
    let documented = documented();
    let unknown: Vec<_> = named.difference(&documented).collect();
    assert!(named.len() >= 8 && unknown.is_empty(), "{named:?} {unknown:?}");
    let rights = include_str!("../../../../smf/rbac/exec_attr");
    for line in rights.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let allowed = ["/usr/sbin/zlogin:uid=0", "/usr/sbin/zoneadm:uid=0"];
        let fits = allowed
            .iter()
            .any(|end| *line == format!("helios-ci Debug:solaris:cmd:::{end}"));
        assert!(fits, "{line}");
    }
    // machined needs no profile: it is root, whole.
    let manifest = include_str!("../../../../smf/machined.xml");
    assert!(
        manifest.contains("<method_credential user=\"root\" group=\"root\"/>") && !manifest.contains("privileges=")
    );
    let package = include_str!("../../../../smf/helios-ci.p5m");
    assert!(!package.contains("profiles=") && !package.contains("user_attr"));
}
