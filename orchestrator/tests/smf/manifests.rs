//! The service manifests against the system's own document type, and against what our programs expect.

use std::{fs, process::Command};

use regex::Regex;

use crate::{output, package, prerequisites, project, read, text};

/// Names of the manifests in smf/.
pub(crate) fn manifests() -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(project().join("smf"))
        .expect("smf")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("a name"))
        .filter(|name| name.ends_with(".xml"))
        .map(|name| format!("smf/{name}"))
        .collect();
    names.sort();
    assert_eq!(names, ["smf/helios-ci.xml", "smf/machined.xml"]);
    names
}

/// A manifest without its comments.
pub(crate) fn manifest(name: &str) -> String {
    let comments = Regex::new("(?s)<!--.*?-->").expect("a pattern");
    comments.replace_all(&read(name), "").into_owned()
}

/// The value of a property, as in `config/file`.
pub(crate) fn property(manifest: &str, name: &str) -> Option<String> {
    let (group, name) = name.split_once('/').expect("group/name");
    let group = Regex::new(&format!(
        "(?s)<property_group name=\"{group}\"[^>]*>(.*?)</property_group>"
    ))
    .expect("a pattern")
    .captures(manifest)?;
    let value = Regex::new(&format!(
        "<propval name=\"{name}\" type=\"astring\" value=\"([^\"]*)\"/>"
    ))
    .expect("a pattern")
    .captures(&group[1])?;
    Some(value[1].to_owned())
}

/// What a method runs, and how long SMF waits for it.
fn method(manifest: &str, name: &str) -> (String, u32) {
    let found = Regex::new(&format!(
        "<exec_method name=\"{name}\" type=\"method\" timeout_seconds=\"([0-9]+)\"\\s+exec=\"([^\"]*)\""
    ))
    .expect("a pattern")
    .captures(manifest)
    .unwrap_or_else(|| panic!("no method {name}"));
    (found[2].to_owned(), found[1].parse().expect("seconds"))
}

fn dependency(manifest: &str, fmri: &str) -> String {
    let found = Regex::new(&format!(
        "<dependency ([^>]*)>\\s*<service_fmri value=\"{fmri}\"/>\\s*</dependency>"
    ))
    .expect("a pattern")
    .captures(manifest)
    .unwrap_or_else(|| panic!("no dependency on {fmri}"));
    found[1].to_owned()
}

#[test]
fn every_manifest_is_valid() {
    let Some(dtd) = prerequisites::needs_conformance("illumos/service_bundle.dtd.1") else {
        return;
    };
    // The agent's, in illumos guests, is read by the same system.
    let guests = "images/illumos/helios-agent.xml".to_owned();
    for manifest in manifests().into_iter().chain([guests]) {
        let valid = output(
            Command::new("xmllint")
                .args(["--noout", "--nonet", "--dtdvalid"])
                .arg(&dtd)
                .arg(project().join(&manifest)),
        );
        assert!(valid.status.success(), "{}", text(&valid.stderr));
    }
}

#[test]
fn every_duration_is_one_that_smf_knows() {
    for name in manifests() {
        let manifest = manifest(&name);
        // Any other word would silently mean `contract`: SMF would wait for the start to return, for ever.
        let duration = property(&manifest, "startd/duration").expect("a duration");
        assert!(
            ["child", "contract", "transient"].contains(&duration.as_str()),
            "{name}: {duration}"
        );
        assert_eq!(duration, "child", "{name} stays in the foreground");
        assert_eq!(
            property(&manifest, "startd/ignore_error").as_deref(),
            Some("core,signal"),
            "{name}: a crashed command must not take the service with it"
        );
    }
}

#[test]
fn the_daemon_is_an_ordinary_user_and_says_itself_what_is_missing() {
    let manifest = manifest("smf/helios-ci.xml");
    assert!(manifest.contains("<create_default_instance enabled=\"false\"/>"));
    assert!(manifest.contains(
        "<method_credential user=\"helios-ci\" group=\"helios-ci\"\n            \
         privileges=\"basic,!proc_info,!proc_session,!file_link_any\"/>"
    ));
    for name in manifests() {
        let manifest = self::manifest(&name);
        assert_eq!(
            property(&manifest, "config/file").as_deref(),
            Some(helios_ci::config::DEFAULT_PATH)
        );
        assert!(
            !manifest.contains("type=\"path\""),
            "a missing configuration must be said, not waited for"
        );
        let (refresh, _) = method(&manifest, "refresh");
        assert_eq!(
            refresh, "/opt/helios-ci/lib/svc/method/tell refresh %{restarter/contract} %{restarter/start_pid}",
            "the whole contract must not be signalled: SIGHUP ends its commands"
        );
    }
}

#[test]
fn machined_keeps_every_privilege_and_its_commands_outlive_a_stop() {
    let manifest = manifest("smf/machined.xml");
    assert!(manifest.contains("<create_default_instance enabled=\"true\"/>"));
    assert_eq!(manifest.matches("user=\"root\" group=\"root\"/>").count(), 3);
    assert!(
        !manifest.contains("privileges"),
        "zoneadm refuses a caller that lacks any privilege"
    );
    let (stop, seconds) = method(&manifest, "stop");
    assert_eq!(
        stop,
        "/opt/helios-ci/lib/svc/method/tell stop %{restarter/contract} %{restarter/start_pid}"
    );
    // machined gives what has begun 45 s, and one command's longest deadline is 90 s.
    assert!(seconds >= 45 + 90, "{seconds} s kill a command in the middle");
}

#[test]
fn machined_comes_first_and_neither_restarts_the_other() {
    let daemon = manifest("smf/helios-ci.xml");
    for (manifest, fmri) in [
        (&daemon, "svc:/application/helios-ci/machined:default"),
        (&daemon, "svc:/system/zones:default"),
        (&self::manifest("smf/machined.xml"), "svc:/system/zones:default"),
        (&self::manifest("smf/machined.xml"), "svc:/network/ipfilter:default"),
    ] {
        let dependency = dependency(manifest, fmri);
        assert!(
            dependency.contains("grouping=\"optional_all\" restart_on=\"none\" type=\"service\""),
            "{fmri}: {dependency}"
        );
    }
}

#[test]
fn methods_are_installed_and_their_properties_exist() {
    let files = package::laid();
    let token = Regex::new("%\\{([^}]*)\\}").expect("a pattern");
    for name in manifests() {
        let manifest = manifest(&name);
        for run in ["start", "stop", "refresh"].map(|name| method(&manifest, name).0) {
            if run == ":kill" {
                continue;
            }
            let program = run.split(' ').next().expect("a program").trim_start_matches('/');
            assert!(
                files.iter().any(|file| file.path == program && file.mode == 0o555),
                "{name}: {program} is not installed as a program"
            );
            for found in token.captures_iter(&run) {
                // SMF's own of a running service (svc.startd(8)).
                if ["restarter/contract", "restarter/start_pid"].contains(&&found[1]) {
                    continue;
                }
                assert!(
                    property(&manifest, &found[1]).is_some(),
                    "{name}: no property {}",
                    &found[1]
                );
            }
        }
    }
}
