//! What docs/illumos-evidence.md says of the code: each fact names the code that stands on it, and what is only believed
//! is rehearsed on the first real host.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use helios_ci::machine::zone::setup::rehearsal::STEPS;

use super::{project, rust_files};

/// One fact.
struct Row {
    fact: String,
    seen: String,
    source: String,
    /// A file, and what is to be found in it.
    code: (String, String),
    step: Option<String>,
}

fn rows() -> Vec<Row> {
    let page = fs::read_to_string(project().join("docs/illumos-evidence.md")).expect("the page");
    let cells = |line: &str| -> Vec<String> {
        let line = line.trim().trim_start_matches('|').trim_end_matches('|');
        line.split('|').map(|cell| cell.trim().to_owned()).collect()
    };
    let mut rows = Vec::new();
    for line in page.lines().filter(|line| line.starts_with('|')) {
        let cells = cells(line);
        let [fact, seen, source, code, step] = cells.as_slice() else {
            // The table of how things were seen has two columns; a row that lost one of its five is held to nothing.
            assert_eq!(cells.len(), 2, "{line}");
            continue;
        };
        if fact == "fact" || fact.starts_with("---") {
            continue;
        }
        let place = code.strip_prefix('`').and_then(|code| code.strip_suffix('`'));
        let place = place.and_then(|code| code.split_once(": "));
        let (file, words) = place.unwrap_or_else(|| panic!("`FILE: WORDS` and not {code}"));
        rows.push(Row {
            fact: fact.clone(),
            seen: seen.clone(),
            source: source.clone(),
            code: (file.to_owned(), words.to_owned()),
            step: (step != "–").then(|| step.clone()),
        });
    }
    rows
}

#[test]
fn every_fact_of_illumos_has_its_source_and_its_code() {
    let rows = rows();
    assert!(rows.len() > 40, "{}", rows.len());
    let mut wrong = Vec::new();
    let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
    for row in &rows {
        *counts.entry(row.seen.as_str()).or_default() += 1;
        if !["run", "source", "manual", "believed"].contains(&row.seen.as_str()) || row.source.is_empty() {
            wrong.push(format!("{}: seen `{}` in `{}`", row.fact, row.seen, row.source));
        }
        let (file, words) = &row.code;
        let places = ["orchestrator/src", ""].map(|dir| project().join(dir).join(file));
        let text = places.iter().find_map(|path| fs::read_to_string(path).ok());
        if !text.is_some_and(|text| text.contains(words.as_str())) {
            wrong.push(format!("{}: no `{words}` in {file}", row.fact));
        }
        if row.seen == "believed" && row.step.is_none() {
            wrong.push(format!("{}: it is believed, and never tried", row.fact));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    println!("{counts:?}");
}

#[test]
fn the_rehearsal_is_what_the_page_asks_for() {
    let steps: BTreeSet<&str> = STEPS.iter().map(|step| step.id).collect();
    assert_eq!(steps.len(), STEPS.len(), "each step has a name of its own");
    let rows = rows();
    let asked: BTreeSet<&str> = rows.iter().filter_map(|row| row.step.as_deref()).collect();
    assert_eq!(asked, steps);
}

#[test]
fn every_command_of_the_host_has_a_fact() {
    let mut files = Vec::new();
    rust_files(&project().join("orchestrator/src/machine/zone/command"), &mut files);
    let rows = rows();
    let without: Vec<String> = files
        .iter()
        .filter_map(|file| Some(file.file_name()?.to_str()?.to_owned()))
        // What they have in common.
        .filter(|name| !["mod.rs", "fields.rs"].contains(&name.as_str()))
        .filter(|name| {
            let path = format!("machine/zone/command/{name}");
            !rows.iter().any(|row| row.code.0 == path)
        })
        .collect();
    assert!(without.is_empty(), "{without:?}");
}
