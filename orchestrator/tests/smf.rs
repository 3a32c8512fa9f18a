//! The SMF manifest against the system's own document type, and against what the daemon expects.

use std::{path::PathBuf, process::Command};

fn project() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[test]
#[allow(clippy::disallowed_methods, reason = "the validator is started as a person would")]
fn the_manifest_is_valid() {
    let conformance = std::env::var_os("HELIOS_CI_CONFORMANCE")
        .map_or_else(|| project().join("../shared/conformance"), PathBuf::from);
    let dtd = conformance.join("illumos/service_bundle.dtd.1");
    if !dtd.exists() {
        println!("skipped: no conformance data");
        return;
    }
    let manifest = project().join("smf/helios-ci.xml");
    match Command::new("xmllint")
        .args(["--noout", "--nonet", "--dtdvalid"])
        .arg(&dtd)
        .arg(&manifest)
        .output()
    {
        Ok(output) => assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr)),
        Err(error) => println!("skipped: no xmllint ({error})"),
    }
}

#[test]
fn the_manifest_runs_an_ordinary_user_and_names_the_default_configuration() {
    let text = std::fs::read_to_string(project().join("smf/helios-ci.xml")).unwrap();
    assert!(text.contains("user=\"helios-ci\""));
    assert!(text.contains("privileges=\"basic,!proc_info,!proc_session,!file_link_any\""));
    assert!(text.contains(&format!(
        "name=\"file\" type=\"astring\" value=\"{}\"",
        helios_ci::config::DEFAULT_PATH
    )));
    assert!(
        !text.contains("type=\"path\""),
        "a missing configuration must be said, not waited for"
    );
}
