//! What doctor says of a host that lacks something: one line with its cure, and of what needs that thing not a word.

use std::{fs, time::Duration};

use illumos_sim::{faults::Action, state::ZoneState, zonecfg::index};
use serde_json::Value;

use super::{
    admin::{Keeper, configure, connected, run, said},
    foreign_objects,
    simulated_host::{self, host},
};

const BRAND: &str = "/usr/lib/brand/bhyve/config.xml";
const HOOK: &str = "/usr/lib/brand/bhyve/boot";

/// The lines of which each needs those before it.
const NEED: &[&str] = &["user", "illumos", "bhyve brand", "processor", "datasets and rules"];
/// What is looked at of a host that has all of these, whatever is wrong with any of it.
const REST: &[&str] = &[
    "pool",
    "links",
    "forwarding",
    "memory",
    "virtual processors",
    "scheduler",
    "zone of debian",
    "image debian",
];

/// Exit code and lines.
fn doctor() -> (Option<i32>, Vec<Value>) {
    let output = run(&["doctor", "--json"]);
    let lines = serde_json::from_slice(&output.stdout);
    let lines = lines.unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code(), lines)
}

fn line<'l>(lines: &'l [Value], name: &str) -> Option<&'l Value> {
    lines.iter().find(|line| line["name"] == name)
}

/// Whether a line has these words, and its cure those.
fn says(line: &Value, status: &str, words: &str, fix: &str) -> bool {
    let has = |key: &str, words: &str| line[key].as_str().is_some_and(|text| text.contains(words));
    line["status"] == status && has("detail", words) && has("fix", fix)
}

/// A host that lacks something, and how it gets it back.
struct Lack {
    line: &'static str,
    words: &'static str,
    fix: &'static str,
    take: fn(),
    mend: fn(),
}

fn version(version: &str) {
    host().mutate(|host| host.state.version = version.to_owned()).unwrap();
}

const LACKS: &[Lack] = &[
    Lack {
        line: "illumos",
        words: "SmartOS",
        fix: "OmniOS",
        take: || version("joyent_20251002T000459Z"),
        mend: || version("omnios-r151054-sim"),
    },
    Lack {
        line: "bhyve brand",
        words: "no restartinit0",
        fix: "update the host",
        take: || {
            fs::copy(BRAND, "/run/brand.xml").unwrap();
            fs::write(BRAND, "<brand name=\"bhyve\"><restartinit>true</restartinit></brand>\n").unwrap();
        },
        mend: || {
            fs::copy("/run/brand.xml", BRAND).unwrap();
        },
    },
    Lack {
        line: "bhyve brand",
        words: "no boot hook",
        fix: "update the host",
        take: || fs::rename(HOOK, "/usr/lib/brand/bhyve/off").unwrap(),
        mend: || fs::rename("/usr/lib/brand/bhyve/off", HOOK).unwrap(),
    },
    Lack {
        line: "bhyve brand",
        words: BRAND,
        fix: "pkg install",
        take: || fs::remove_file(BRAND).unwrap(),
        mend: || {
            fs::copy("/run/brand.xml", BRAND).unwrap();
        },
    },
    Lack {
        line: "processor",
        words: "/dev/vmmctl",
        fix: "no other hypervisor",
        take: || fs::remove_file("/dev/vmmctl").unwrap(),
        mend: || fs::write("/dev/vmmctl", "").unwrap(),
    },
    Lack {
        line: "datasets and rules",
        words: "owner tag",
        fix: "helios-ci setup",
        take: || drop(simulated_host::run("zfs", &["set", "helios-ci:node=n2", "rpool/hci"])),
        mend: || drop(simulated_host::run("zfs", &["set", "helios-ci:node=n1", "rpool/hci"])),
    },
    Lack {
        line: "datasets and rules",
        words: "/etc/ipf/ipf.conf",
        fix: "helios-ci setup --yes",
        take: || host().mutate(|host| host.state.filter.rules.clear()).unwrap(),
        mend: || drop(said(&["setup", "--yes"])),
    },
];

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run inside a simulated host by zones_on_a_simulated_host"]
async fn a_host_that_lacks_something_is_told_what_and_how_to_mend_it() {
    configure();
    simulated_host::prepare();
    let _keeper = Keeper::start();
    connected().await;
    let is_whole = || {
        let (_, lines) = doctor();
        for name in NEED.iter().chain(REST) {
            let line = line(&lines, name).unwrap_or_else(|| panic!("no {name}: {lines:#?}"));
            assert_ne!(line["status"], "failure", "{line:#}");
        }
    };
    is_whole();
    let scheduler = || line(&doctor().1, "scheduler").unwrap().clone();
    assert!(
        says(&scheduler(), "warning", "FSS", "dispadmin -d FSS"),
        "{}",
        scheduler()
    );
    simulated_host::run("dispadmin", &["-d", "FSS"]);
    assert_eq!(scheduler()["status"], "ok");
    for lack in LACKS {
        (lack.take)();
        let (code, lines) = doctor();
        assert_eq!(code, Some(1), "{lines:#?}");
        let at = NEED.iter().position(|name| *name == lack.line).unwrap();
        for (n, name) in NEED.iter().chain(REST).enumerate() {
            let found = line(&lines, name);
            match found {
                Some(line) if n < at => assert_eq!(line["status"], "ok", "{line:#}"),
                Some(line) if n == at => assert!(says(line, "failure", lack.words, lack.fix), "{line:#}"),
                None if n > at => {}
                _ => panic!("{name} beside {}: {found:?}", lack.line),
            }
        }
        (lack.mend)();
    }
    is_whole();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run inside a simulated host by zones_on_a_simulated_host"]
async fn zones_that_are_stuck_are_named_and_stop_nothing() {
    configure();
    simulated_host::prepare();
    let strangers = foreign_objects::settle();
    let _keeper = Keeper::start();
    connected().await;
    let (_, lines) = doctor();
    assert_eq!(line(&lines, "zones").unwrap()["status"], "ok", "{lines:#?}");
    for (state, words) in [(ZoneState::Down, "Down"), (ZoneState::ShuttingDown, "ShuttingDown")] {
        host()
            .mutate(|host| {
                let zone = host.state.zones.get_mut("web1").unwrap();
                (zone.state, zone.guest) = (state, false);
                let mut half = index::find(host, &strangers.unmarked).unwrap().unwrap();
                half.state = ZoneState::Incomplete;
                index::put(host, half).unwrap();
            })
            .unwrap();
        let (_, lines) = doctor();
        let half = format!("zone {}", strangers.unmarked);
        for (name, words) in [("zone web1", words), (half.as_str(), "Incomplete")] {
            let line = line(&lines, name).unwrap_or_else(|| panic!("no {name}: {lines:#?}"));
            assert!(says(line, "warning", words, "reboot of the host"), "{line:#}");
        }
        assert!(line(&lines, "zones").is_none(), "{lines:#?}");
        for name in REST {
            assert!(line(&lines, name).is_some(), "no {name}: {lines:#?}");
        }
        let forwarding = line(&lines, "forwarding").unwrap();
        assert!(
            says(forwarding, "warning", "forwards", "ipadm set-prop -p forwarding=off"),
            "{forwarding:#}"
        );
    }
}

/// machined looks for links that are nobody's while doctor has some.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "run inside a simulated host by zones_on_a_simulated_host"]
async fn a_sweep_leaves_doctors_links_alone() {
    configure();
    simulated_host::prepare();
    let _keeper = Keeper::start();
    let machines = connected().await;
    simulated_host::faults(vec![simulated_host::fault(
        "dladm",
        &["set-linkprop"],
        1,
        Action::Slow { ms: 5000 },
    )]);
    let asked = tokio::task::spawn_blocking(doctor);
    let has_links = || host().state().unwrap().links.contains_key("hciv16383");
    while !has_links() {
        assert!(!asked.is_finished(), "{:#?}", asked.await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    machines.list().await.unwrap();
    let (_, lines) = asked.await.unwrap();
    let links = line(&lines, "links").unwrap();
    assert_eq!(links["status"], "ok", "{links:#}");
    assert_eq!(simulated_host::left(), Vec::<String>::new());
}
