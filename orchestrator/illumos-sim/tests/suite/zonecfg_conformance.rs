//! Scripts and what illumos's own zonecfg made of them: each is run as `zonecfg -z ZONE -f SCRIPT` on a host without
//! zones, where bhyve is the only brand.

use std::{fs, thread};

use illumos_sim::{Ended, Out, Sim, zonecfg::index};
use serde::Deserialize;

use crate::prerequisites;

/// How many cases run at once.
const WORKERS: usize = 8;

/// One script with its verdict.
#[derive(Debug, Deserialize)]
struct Case {
    name: String,
    zone: String,
    script: String,
    exit: i32,
    /// The first lines of what it said; `SCRIPT` is the path of the script.
    says: String,
    /// Whether the zone is in the index afterwards.
    committed: bool,
    /// What `export` prints afterwards; empty of a zone that is not there.
    export: String,
}

/// Cases that the simulator answers otherwise, with the reason. One that has become equal fails the test.
const EXCEPTIONS: &[(&str, &str)] = &[(
    "val-crlf",
    "the script in the data has lost the carriage returns that its verdict is about",
)];

fn run(sim: &Sim, args: &[&str]) -> Out {
    match sim.run("zonecfg", args).unwrap() {
        Ended::Exit(out) => out,
        other => panic!("{args:?}: {other:?}"),
    }
}

/// What differs from the verdict; none when nothing does.
fn difference(case: &Case) -> Option<String> {
    let dir = tempfile::tempdir().unwrap();
    let sim = Sim::create(&dir.path().join("host")).unwrap();
    for brand in fs::read_dir(sim.root().join("usr/lib/brand")).unwrap() {
        let brand = brand.unwrap();
        if brand.file_name() != "bhyve" {
            fs::remove_dir_all(brand.path()).unwrap();
        }
    }
    let script = dir.path().join("script").display().to_string();
    fs::write(&script, &case.script).unwrap();
    let out = run(&sim, &["-z", &case.zone, "-f", &script]);
    let found = sim.mutate(|host| index::find(host, &case.zone)).unwrap().unwrap();
    let exported = match &found {
        Some(_) => run(&sim, &["-z", &case.zone, "export"]).stdout,
        None => String::new(),
    };
    let said = format!("{}{}", out.stdout, out.stderr).replace(&script, "SCRIPT");
    let first: Vec<&str> = said.split('\n').take(case.says.split('\n').count()).collect();
    let shown = format!("said {said:?}, illumos {:?}", case.says);
    if out.code != case.exit {
        Some(format!("exit {}, illumos {}; {shown}", out.code, case.exit))
    } else if found.is_some() != case.committed {
        Some(format!(
            "committed {}, illumos {}; {shown}",
            found.is_some(),
            case.committed
        ))
    } else if exported != case.export {
        Some(format!("exports {exported:?}, illumos {:?}", case.export))
    } else if !case.says.is_empty() && first.join("\n") != case.says {
        Some(shown)
    } else {
        None
    }
}

#[test]
fn the_simulators_zonecfg_gives_illumos_verdicts() {
    let Some(lines) = prerequisites::needs_conformance_lines("illumos/zonecfg.jsonl") else {
        return;
    };
    let cases: Vec<Case> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let judge = |case: &Case| {
        let excepted = EXCEPTIONS.iter().find(|(name, _)| *name == case.name);
        match (difference(case), excepted) {
            (Some(text), None) => Some(format!("{}: {text}", case.name)),
            (None, Some((name, _))) => Some(format!("{name}: it is an exception and equal")),
            _ => None,
        }
    };
    // Making a host is waiting for files more than anything else.
    let wrong: Vec<String> = thread::scope(|scope| {
        let shares = cases.chunks(cases.len().div_ceil(WORKERS));
        let workers: Vec<_> = shares
            .map(|share| scope.spawn(move || share.iter().filter_map(judge).collect::<Vec<_>>()))
            .collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    assert!(
        wrong.is_empty(),
        "{} of {} differ:\n{}",
        wrong.len(),
        cases.len(),
        wrong.join("\n")
    );
    let equal = cases.len() - EXCEPTIONS.len();
    println!("{equal} of {} scripts get illumos's verdict", cases.len());
}
