//! The simulated brand beside the real one: what its own boot program, run over these zones' configurations on two
//! releases, gave bhyve as its arguments.

use illumos_sim::{Ended, Sim, boot::brand, host::Host, zonecfg};
use serde::Deserialize;
use serde_json::Value;

use crate::prerequisites;

/// Zones whose command line is known to differ, and why. One that is equal again must leave this list.
const EXCEPTIONS: &[(&str, &str)] = &[];

/// The releases of the data by what `uname -v` says there.
const RELEASES: [(&str, &str); 2] = [
    ("master", "omnios-master-0123456789"),
    ("r151054", "omnios-r151054-0123456789"),
];

/// One zone, and what the brand makes of it on each release: `argv`, or why there is none.
#[derive(Deserialize)]
struct Case {
    name: String,
    script: String,
    master: Value,
    r151054: Value,
}

/// The name of the zone, which the data has in the command line alone.
fn zone(case: &Case) -> &str {
    let path = case.script.lines().find_map(|line| line.strip_prefix("set zonepath="));
    path.and_then(|path| path.trim_matches('"').rsplit('/').next()).unwrap()
}

fn argv(host: &Host, name: &str) -> Result<Vec<String>, String> {
    let config = zonecfg::load(host, name).unwrap().unwrap();
    let mut argv = brand::machine(host, &config)?.argv();
    // The zone is not installed, so that this is another one each time.
    if let Some(at) = argv.iter().position(|word| word == "-U") {
        let uuid = std::mem::replace(&mut argv[at + 1], "UUID".into());
        argv.iter_mut().for_each(|word| *word = word.replace(&uuid, "UUID"));
    }
    Ok(argv)
}

/// How the simulated brand differs from what was seen.
fn difference(seen: &Value, made: &Result<Vec<String>, String>) -> Option<String> {
    let same = match (seen["argv"].as_array(), made) {
        (Some(seen), Ok(made)) => seen.iter().eq(made),
        // Some of its own words; around them may be what Python says of its end.
        (None, Err(text)) => {
            !text.trim().is_empty()
                && seen
                    .to_string()
                    .contains(Value::from(text.trim()).to_string().trim_matches('"'))
        }
        _ => false,
    };
    (!same).then(|| format!("the brand: {seen}\nhere:      {made:?}"))
}

#[test]
fn zones_become_the_brands_own_command_lines() {
    let Some(lines) = prerequisites::needs_conformance_lines("illumos/brand.jsonl") else {
        return;
    };
    let cases: Vec<Case> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(!cases.is_empty());
    let (mut wrong, mut equal) = (Vec::new(), 0);
    let dir = tempfile::tempdir().unwrap();
    let sim = Sim::create(&dir.path().join("host")).unwrap();
    let file = dir.path().join("script");
    for case in &cases {
        std::fs::write(&file, &case.script).unwrap();
        let name = zone(case);
        let ended = sim.run("zonecfg", &["-z", name, "-f", file.to_str().unwrap()]).unwrap();
        if !matches!(&ended, Ended::Exit(out) if out.code == 0) {
            wrong.push(format!("{}: zonecfg: {ended:?}", case.name));
            continue;
        }
        let differs = RELEASES.iter().filter_map(|(release, version)| {
            let made = sim.mutate(|host| {
                (*version).clone_into(&mut host.state.version);
                argv(host, name)
            });
            let seen = if *release == "master" {
                &case.master
            } else {
                &case.r151054
            };
            let difference = difference(seen, &made.unwrap())?;
            Some(format!("{} on {release}:\n{difference}", case.name))
        });
        let differs: Vec<String> = differs.collect();
        sim.run("zonecfg", &["-z", name, "delete", "-F"]).unwrap();
        let exception = EXCEPTIONS.iter().find(|(name, _)| *name == case.name);
        match (exception, differs.is_empty()) {
            (Some((name, why)), true) => wrong.push(format!("{name} is no exception any more ({why})")),
            (None, false) => wrong.extend(differs),
            (None, true) => equal += 1,
            (Some(_), false) => {}
        }
    }
    println!("{equal} of {} zones have the brand's own command lines", cases.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
