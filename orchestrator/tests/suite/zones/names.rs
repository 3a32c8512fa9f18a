//! Names and values from outside, end to end: each is carried unchanged to where the host keeps it, or refused at the
//! door by a message that shows it. None becomes syntax.

use std::collections::BTreeMap;

use helios_ci::{
    machine::zone::{config::ZoneConfig, export::Exported},
    model::{ids::AttemptId, illumos::names::AttrValue, names::MachineName},
};
use proptest::{prelude::*, test_runner::TestRunner};

use super::{
    admin::{CONFIG, command},
    simulated_host,
};

/// What people and attackers write.
fn hostile() -> Vec<String> {
    let mut values: Vec<String> = [
        "",
        "a b",
        "a\"b",
        "a'b",
        "a;b",
        "a\nb",
        "a\n\"\nend\ndelete -F\n",
        "x; delete -F",
        "\" ; delete -F ; \"",
        "[a,b]",
        "(a=b)",
        "a=b",
        "a,b",
        "#a",
        "$(reboot)",
        "`reboot`",
        "-o",
        "-x -o exec=on",
        "../../etc",
        "a@b",
        "a:b",
        "a\tb",
        "a\u{1b}[31mb",
        "a\u{0}b",
        "ünïcödé",
        "名前",
        "\u{202e}evil",
    ]
    .map(str::to_owned)
    .to_vec();
    values.push("x".repeat(300));
    values
}

/// A configuration with one value somewhere; JSON is YAML.
fn configuration(place: &str, value: &str) -> String {
    let mut config = serde_json::json!({
        "node": "n1", "backend": "zone", "data_dir": "/run/data", "agent": "/run/agent",
        "zone": {"dataset": "rpool/hci", "path": "/mnt/hci", "bandwidth": "1G"},
        "images": {"debian": {"size": {"cpus": 1, "memory_mib": 512}, "attributes": {}}},
    });
    match place {
        "node" => config["node"] = value.into(),
        "label" => config["images"] = serde_json::json!({value: {"size": {"cpus": 1, "memory_mib": 512}}}),
        "attribute" => config["images"]["debian"]["attributes"] = serde_json::json!({value: "on"}),
        "value" => config["images"]["debian"]["attributes"] = serde_json::json!({"vga": value}),
        zone => config["zone"][zone] = value.into(),
    }
    config.to_string()
}

/// Whether a message shows enough of a value to find it: what comes before its first odd character.
fn shows(message: &str, value: &str) -> bool {
    let start: String = value.chars().take_while(char::is_ascii_alphanumeric).take(40).collect();
    message.contains(&start)
}

#[test]
#[ignore = "run inside a simulated host by zones_on_a_simulated_host"]
fn every_value_is_carried_unchanged_or_refused_by_name() {
    std::fs::write("/run/agent", b"agent").unwrap();
    let (mut refused, mut carried) = (0, Vec::new());
    for place in ["node", "label", "attribute", "value", "dataset", "path", "bandwidth"] {
        for value in hostile() {
            std::fs::write(CONFIG, configuration(place, &value)).unwrap();
            let label = if place == "label" { value.as_str() } else { "debian" };
            if label.contains('\0') {
                continue;
            }
            let image = format!("--image={label}");
            let output = command(&["machine", "plan", &image, "--json"]).output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(
                !said.contains('\u{1b}') || said.contains("\u{1b}["),
                "{place} {value:?}: {said}"
            );
            assert!(
                !said.contains("\u{1b}[31mb"),
                "{place} {value:?} steers the terminal: {said}"
            );
            if !output.status.success() {
                assert!(
                    said.contains("error") || said.contains('×'),
                    "{place} {value:?}: {said}"
                );
                assert!(
                    shows(&said, &value) && !said.contains("panicked"),
                    "{place} {value:?}: {said}"
                );
                refused += 1;
                continue;
            }
            let plan: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
            let text = plan["zonecfg"].as_str().unwrap();
            carried.push(format!("{place}={value:?}"));
            // The simulated host's own zonecfg keeps it as it was given.
            let name = MachineName::of(AttemptId::new());
            std::fs::write("/run/z.cfg", text).unwrap();
            simulated_host::run("zonecfg", &["-z", name.as_str(), "-f", "/run/z.cfg"]);
            let exported = Exported::parse(&simulated_host::run("zonecfg", &["-z", name.as_str(), "export"]));
            match place {
                "value" => assert_eq!(exported.attr("vga"), Some(value.as_str())),
                "node" => assert_eq!(exported.attr("hci-node"), Some(value.as_str())),
                "attribute" => assert_eq!(exported.attr(&value), Some("on")),
                "path" => assert!(exported.globals["zonepath"].starts_with(&value), "{exported:?}"),
                "dataset" => assert!(exported.attr("bootdisk").unwrap().starts_with(&value), "{exported:?}"),
                _ => {}
            }
            assert_eq!(exported.globals["brand"], "bhyve");
            assert_eq!(
                exported
                    .resources
                    .iter()
                    .filter(|resource| resource.kind == "device")
                    .count(),
                1
            );
            simulated_host::run("zonecfg", &["-z", name.as_str(), "delete", "-F"]);
        }
    }
    assert!(refused > 100, "{refused} refused; carried: {carried:#?}");
}

#[test]
#[ignore = "run inside a simulated host by zones_on_a_simulated_host"]
fn no_value_becomes_syntax_of_zonecfg() {
    let mut runner = TestRunner::new(ProptestConfig {
        cases: 150,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let words = prop_oneof![
        "\\PC{0,40}",
        "[ -~]{0,300}",
        "[;\"\n\\[\\](){}=,#\\\\ a]{1,20}",
        Just("\nend\ndelete -F\n".to_owned()),
    ];
    let name = MachineName::of(AttemptId::new());
    let base = |attrs| ZoneConfig {
        name: name.clone(),
        zonepath: "/mnt/hci/z".parse().unwrap(),
        vnic: "hciv7".parse().unwrap(),
        devices: vec!["/dev/zvol/rdsk/rpool/hci/machines/z".parse().unwrap()],
        cpu_shares: 100,
        max_lwps: 100,
        attrs,
    };
    runner
        .run(&words, |text| {
            match text.parse::<AttrValue>() {
                Err(error) => prop_assert!(shows(&error.to_string(), &text), "{error}"),
                Ok(value) => {
                    let config = base(vec![("type".parse().unwrap(), value)]);
                    std::fs::write("/run/z.cfg", config.to_file()).unwrap();
                    simulated_host::run("zonecfg", &["-z", name.as_str(), "-f", "/run/z.cfg"]);
                    let exported = Exported::parse(&simulated_host::run("zonecfg", &["-z", name.as_str(), "export"]));
                    prop_assert_eq!(exported.difference(&config), None);
                    prop_assert_eq!(exported.attr("type"), Some(text.as_str()));
                    simulated_host::run("zonecfg", &["-z", name.as_str(), "delete", "-F"]);
                }
            }
            Ok(())
        })
        .unwrap();
    // Names of jobs, steps and branches do not reach a machine: its name is its attempt's id, or it is no name.
    let mut seen = BTreeMap::new();
    for value in hostile() {
        for text in [
            value.clone(),
            format!("hci-{value}"),
            format!("hci-01k9zk6x0f5t3b8w2q7m4d1c0e{value}"),
        ] {
            if let Ok(name) = text.parse::<MachineName>() {
                seen.insert(text, name);
            }
        }
    }
    assert_eq!(seen.keys().collect::<Vec<_>>(), ["hci-01k9zk6x0f5t3b8w2q7m4d1c0e"]);
}
