//! Authorizations and rights profiles: who may do what with the services.

use std::collections::BTreeSet;

use crate::{
    manifests::{manifest, manifests, property},
    package, read,
};

/// The lines of a file of RBAC's, in fields.
fn fields(path: &str, count: usize) -> Vec<Vec<String>> {
    let lines: Vec<Vec<String>> = read(path)
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split(':').map(str::to_owned).collect())
        .collect();
    for line in &lines {
        assert_eq!(line.len(), count, "{path}: {line:?}");
    }
    lines
}

fn defined() -> BTreeSet<String> {
    fields("smf/rbac/auth_attr", 6)
        .into_iter()
        .map(|mut line| line.swap_remove(0))
        .collect()
}

/// Profiles with their descriptions and authorizations.
fn profiles() -> Vec<(String, String, Vec<String>)> {
    fields("smf/rbac/prof_attr", 5)
        .into_iter()
        .map(|line| {
            let auths = line[4].strip_prefix("auths=").expect("authorizations");
            (
                line[0].clone(),
                line[3].clone(),
                auths.split(',').map(str::to_owned).collect(),
            )
        })
        .collect()
}

#[test]
fn every_authorization_that_is_named_is_defined_and_used() {
    let mut named = BTreeSet::new();
    for name in manifests() {
        let manifest = manifest(&name);
        for (group, right) in [
            ("general", "action"),
            ("general", "value"),
            ("config", "read"),
            ("config", "value"),
            ("config", "modify"),
        ] {
            named.extend(property(&manifest, &format!("{group}/{right}_authorization")));
        }
    }
    assert_eq!(named, defined());
    for (name, _, auths) in profiles() {
        for auth in auths {
            assert!(
                defined().contains(&auth) || auth == "solaris.zone.manage",
                "{name}: {auth}"
            );
        }
    }
}

#[test]
fn managing_needs_no_root_but_naming_what_root_reads_does() {
    let daemon = manifest("smf/helios-ci.xml");
    let machined = manifest("smf/machined.xml");
    for manifest in [&daemon, &machined] {
        for (name, auth) in [
            ("general/action_authorization", "solaris.smf.manage.helios-ci"),
            ("general/value_authorization", "solaris.smf.manage.helios-ci"),
            ("config/read_authorization", "solaris.smf.read.helios-ci"),
        ] {
            assert_eq!(property(manifest, name).as_deref(), Some(auth), "{name}");
        }
    }
    for right in ["value", "modify"] {
        let name = format!("config/{right}_authorization");
        assert_eq!(property(&daemon, &name), Some(format!("solaris.smf.{right}.helios-ci")));
        assert_eq!(property(&machined, &name), None, "it would make its holders root");
    }
}

#[test]
fn only_the_debug_profile_is_root_and_it_says_so() {
    let profiles = profiles();
    for line in fields("smf/rbac/exec_attr", 7) {
        assert_eq!(line[0], "helios-ci Debug");
        assert_eq!(line[1..3], ["solaris", "cmd"]);
        assert!(["/usr/sbin/zlogin", "/usr/sbin/zoneadm"].contains(&line[5].as_str()));
        assert_eq!(line[6], "uid=0");
    }
    for (name, description, auths) in &profiles {
        let root = name == "helios-ci Debug";
        assert_eq!(description.contains("Root-equivalent"), root, "{name}: {description}");
        assert_eq!(
            auths.iter().any(|auth| auth.starts_with("solaris.zone.")),
            root,
            "{name}"
        );
    }
    let names: Vec<&str> = profiles.iter().map(|(name, ..)| name.as_str()).collect();
    assert_eq!(
        names,
        ["helios-ci Operator", "helios-ci Administrator", "helios-ci Debug"]
    );
    // The daemon faces the network: nothing may give its user any of them.
    assert!(package::laid().iter().all(|file| !file.path.contains("user_attr")));
}
