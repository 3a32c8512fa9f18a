//! The table of the language for people: `helios-ci explain`, and the reference in docs/workflows.md.

use std::fmt::Write as _;

use super::{
    code::Code,
    schema::{Allowed, Definition, Kind, WORKFLOW},
};
use crate::{model::diagnostic::Severity, yaml::nearest};

/// Behind a key whose list's items are meant.
const ITEM: &str = "[*]";

/// What is known about a key or code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Explained {
    /// Lines for a terminal.
    Found(String),
    /// Nothing; a name that is like it.
    Unknown(Option<&'static str>),
}

/// One place of a workflow file.
struct Place {
    /// The keys from the top; `<…>` is one that the file chooses, and `[*]` behind one means each item of its list.
    path: Vec<String>,
    name: &'static str,
    about: &'static str,
    required: bool,
    unsupported: Option<Code>,
    value: &'static Definition,
    allowed: Allowed,
}

/// Explains a key, by its name or by its path or the end of it, or the code of a complaint.
#[must_use]
pub fn explain(query: &str) -> Explained {
    if let Some(code) = Code::named(query) {
        return Explained::Found(format!("{} ({})\n  {}\n", code.name(), severity(code), code.about()));
    }
    let all = places();
    let wanted: Vec<&str> = query
        .split('.')
        .map(|part| part.split('[').next().unwrap_or(part))
        .collect();
    let found: Vec<String> = all.iter().filter(|place| place.is_named(&wanted)).map(text).collect();
    if !found.is_empty() {
        return Explained::Found(found.join("\n"));
    }
    let last = wanted.last().copied().unwrap_or(query);
    let names = all.iter().map(|place| place.name).filter(|name| !name.starts_with('<'));
    let names = names.chain(Code::ALL.iter().map(|code| code.name()));
    Explained::Unknown(nearest(last, names))
}

/// The reference: all keys, and all codes.
#[cfg(test)]
fn reference() -> String {
    let mut text =
        String::from("| key | value | what it is for | its expressions may use | here |\n|---|---|---|---|---|\n");
    for place in places() {
        let here = match (place.unsupported, place.required) {
            (Some(code), _) if code.severity() == Severity::Warning => "ignored",
            (Some(_), _) => "not yet",
            (None, true) => "required",
            (None, false) => "",
        };
        let _ = writeln!(
            text,
            "| `{}` | {} | {} | {} | {here} |",
            place.path(),
            kinds(place.value).replace('|', "\\|"),
            place.about.replace('|', "\\|"),
            usable(place.allowed),
        );
    }
    for (kind, heading) in [
        (Severity::Error, "Errors: it is not a valid workflow"),
        (Severity::Unsupported, "Valid, and not run here yet"),
        (Severity::Warning, "Warnings"),
    ] {
        let _ = write!(text, "\n### {heading}\n\n| code | what it is about |\n|---|---|\n");
        for code in Code::ALL.iter().filter(|code| code.severity() == kind) {
            let _ = writeln!(text, "| `{}` | {} |", code.name(), code.about());
        }
    }
    text
}

fn severity(code: Code) -> &'static str {
    match code.severity() {
        Severity::Error => "error: the file is not a valid workflow",
        Severity::Unsupported => "valid, and not run here yet",
        Severity::Warning => "warning",
    }
}

fn places() -> Vec<Place> {
    let mut places = Vec::new();
    let top = Around {
        allowed: Allowed::NONE,
        unsupported: None,
    };
    collect(&WORKFLOW, &mut Vec::new(), top, &mut Vec::new(), &mut places);
    places
}

/// What holds for all that is below a place.
#[derive(Clone, Copy)]
struct Around {
    allowed: Allowed,
    unsupported: Option<Code>,
}

fn collect(
    definition: &'static Definition,
    path: &mut Vec<String>,
    around: Around,
    open: &mut Vec<&'static Definition>,
    places: &mut Vec<Place>,
) {
    // Steps may hold steps.
    if open.iter().any(|outer| std::ptr::eq(*outer, definition)) {
        return;
    }
    open.push(definition);
    let first = places.len();
    let leaves = definition.leaves(around.allowed);
    let forms = leaves
        .iter()
        .filter(|(leaf, _)| matches!(leaf.kind, Kind::Mapping(_)))
        .count();
    for (leaf, allowed) in leaves {
        let around = Around { allowed, ..around };
        match &leaf.kind {
            Kind::Sequence(item) => {
                if let Some(last) = path.last_mut() {
                    last.push_str(ITEM);
                }
                collect(item, path, around, open, places);
                if let Some(last) = path.last_mut() {
                    last.truncate(last.len() - ITEM.len());
                }
            }
            Kind::Mapping(mapping) => {
                for key in mapping.keys {
                    path.push(key.name.to_owned());
                    let below = Around {
                        unsupported: key.unsupported.or(around.unsupported),
                        ..around
                    };
                    // Forms of one mapping share keys.
                    if !places[first..].iter().any(|place| place.path == *path) {
                        places.push(Place {
                            path: path.clone(),
                            name: key.name,
                            about: key.about,
                            // Of several forms, each has keys of its own that it must have.
                            required: key.required && forms == 1,
                            unsupported: below.unsupported,
                            value: key.value,
                            allowed: usable_in(key.value, allowed),
                        });
                        collect(key.value, path, below, open, places);
                    }
                    path.pop();
                }
                if let Some(others) = &mapping.others {
                    path.push(others.placeholder.to_owned());
                    places.push(Place {
                        path: path.clone(),
                        name: others.placeholder,
                        about: others.about,
                        required: false,
                        unsupported: around.unsupported,
                        value: others.value,
                        allowed: usable_in(others.value, allowed),
                    });
                    collect(others.value, path, around, open, places);
                    path.pop();
                }
            }
            _ => {}
        }
    }
    open.pop();
}

fn usable_in(definition: &'static Definition, around: Allowed) -> Allowed {
    let leaves = definition.leaves(around);
    leaves.iter().fold(Allowed::NONE, |all, (_, allowed)| all.and(*allowed))
}

fn usable(allowed: Allowed) -> String {
    let contexts = allowed.contexts().map(|name| format!("`{name}`"));
    let functions = allowed.functions().map(|name| format!("`{name}()`"));
    contexts.chain(functions).collect::<Vec<_>>().join(" ")
}

/// So many words fit into a line of a table.
const FEW: usize = 24;

fn kinds(definition: &'static Definition) -> String {
    let mut leaves = definition.leaves(Allowed::NONE);
    // One value before a list of them.
    leaves.sort_by_key(|(leaf, _)| matches!(leaf.kind, Kind::Sequence(_)));
    let mut all: Vec<String> = Vec::new();
    for (leaf, _) in leaves {
        let kind = match &leaf.kind {
            Kind::Any | Kind::OneOf(_) => "anything".to_owned(),
            Kind::Null => "nothing".to_owned(),
            Kind::Boolean => "boolean".to_owned(),
            Kind::Number => "number".to_owned(),
            Kind::Text { .. } => "text".to_owned(),
            Kind::Word(words) if words.len() > FEW => "one of the keys below it".to_owned(),
            Kind::Word(words) => format!("`{}`", words.join("`, `")),
            Kind::Sequence(item) => match &item.kind {
                Kind::Mapping(_) | Kind::OneOf(_) | Kind::Any => "list".to_owned(),
                _ if all.contains(&kinds(item)) => "list of them".to_owned(),
                _ => format!("list of {}", kinds(item)),
            },
            Kind::Mapping(_) => "mapping".to_owned(),
        };
        if !all.contains(&kind) {
            all.push(kind);
        }
    }
    all.join(" or ")
}

/// All words that a value may be, where they are too many for one line of a table.
fn words(definition: &'static Definition) -> Option<&'static [&'static str]> {
    definition
        .leaves(Allowed::NONE)
        .iter()
        .find_map(|(leaf, _)| match &leaf.kind {
            Kind::Word(words) => Some(*words),
            _ => None,
        })
}

fn text(place: &Place) -> String {
    let mut text = format!(
        "{}\n  {}\n  value: {}\n",
        place.path(),
        place.about,
        plain(&kinds(place.value))
    );
    if let Some(words) = words(place.value).filter(|words| words.len() > FEW) {
        let _ = writeln!(text, "  words: {}", words.join(", "));
    }
    if place.required {
        text.push_str("  required\n");
    }
    let mut keys: Vec<&str> = Vec::new();
    for (leaf, _) in place.value.leaves(Allowed::NONE) {
        if let Kind::Mapping(mapping) = &leaf.kind {
            let names = mapping.keys.iter().map(|key| key.name);
            for name in names.chain(mapping.others.iter().map(|others| others.placeholder)) {
                if !keys.contains(&name) {
                    keys.push(name);
                }
            }
        }
    }
    if !keys.is_empty() {
        let _ = writeln!(text, "  keys: {}", keys.join(", "));
    }
    let _ = match usable(place.allowed) {
        usable if usable.is_empty() => writeln!(text, "  expressions: cannot be used"),
        usable => writeln!(text, "  expressions: may use {}", plain(&usable)),
    };
    if let Some(code) = place.unsupported {
        let what = if code.severity() == Severity::Warning {
            "ignored"
        } else {
            "not run yet"
        };
        let _ = writeln!(text, "  here: {what} ({}): {}", code.name(), plain(code.about()));
    }
    text
}

/// Marks of Markdown are for the reference alone.
fn plain(text: &str) -> String {
    text.replace('`', "")
}

impl Place {
    fn path(&self) -> String {
        self.path.join(".")
    }

    /// Whether these words are the end of the path. The last one is a name, unless they are all of it.
    fn is_named(&self, wanted: &[&str]) -> bool {
        if wanted.len() > self.path.len() {
            return false;
        }
        let is_whole = wanted.len() == self.path.len();
        let end = &self.path[self.path.len() - wanted.len()..];
        let last = end.len() - 1;
        end.iter().zip(wanted).enumerate().all(|(at, (own, wanted))| {
            let own = own.trim_end_matches(ITEM);
            own == *wanted
                || (own.starts_with('<') && !wanted.is_empty() && (is_whole || at < last || wanted.starts_with('<')))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(query: &str) -> String {
        match explain(query) {
            Explained::Found(text) => text,
            Explained::Unknown(near) => format!("unknown, near {near:?}"),
        }
    }

    #[test]
    fn a_key_is_found_by_its_name_its_path_and_the_end_of_it() {
        insta::assert_snapshot!(found("jobs.<id>.strategy.matrix"), @r#"
jobs.<job-id>.strategy.matrix
  Lists of values; one job for each combination.
  value: mapping
  keys: include, exclude, <name>
  expressions: may use github inputs vars needs
  here: not run yet (unsupported-matrix): Jobs that a matrix multiplies (strategy).
"#);
        assert_eq!(found("jobs.build.strategy.matrix"), found("matrix"));
        assert_eq!(found("strategy.matrix"), found("matrix"));
        insta::assert_snapshot!(found("jobs.<job-id>.steps[*].if"), @r"
        jobs.<job-id>.steps[*].if
          Whether it runs; without it, when no step before it failed.
          value: text
          expressions: may use github inputs vars needs strategy matrix steps job runner env always() cancelled() failure() success() hashFiles()
          here: not run yet (unsupported-if): Conditions of jobs and steps (if).
        ");
        let all = found("env");
        for path in ["env\n", "jobs.<job-id>.env\n", "jobs.<job-id>.steps[*].env\n"] {
            assert!(all.contains(path), "{all}");
        }
        assert!(found("on").starts_with("on\n") && found("on").contains("workflow_dispatch"));
        assert!(found("on.push.branches").contains("Patterns of branches"));
    }

    #[test]
    fn codes_are_explained_and_slips_understood() {
        assert!(found("unknown-key").contains("A key that does not exist"));
        assert_eq!(explain("timout-minutes"), Explained::Unknown(Some("timeout-minutes")));
        assert_eq!(explain("zzzzzzzzzz"), Explained::Unknown(None));
        assert_eq!(explain(""), Explained::Unknown(None));
    }

    /// A row that nobody reads would be a key that is ignored silently: who adds one sees it here.
    #[test]
    fn what_is_acted_on_is_what_the_plan_is_read_from() {
        let acted_on = |place: &&Place| place.unsupported.is_none();
        let all = places();
        let all = all.iter().filter(acted_on).map(Place::path);
        let all: Vec<String> = all
            .filter(|path| !path.starts_with("on.") || path.starts_with("on.push") || path.starts_with("on.workflow_d"))
            .collect();
        insta::assert_snapshot!(all.join("\n"), @r#"
name
description
on
on.push
on.push.branches
on.push.branches-ignore
on.push.tags
on.push.tags-ignore
on.workflow_dispatch
env
env.<name>
jobs
jobs.<job-id>
jobs.<job-id>.name
jobs.<job-id>.needs
jobs.<job-id>.runs-on
jobs.<job-id>.env
jobs.<job-id>.env.<name>
jobs.<job-id>.timeout-minutes
jobs.<job-id>.steps
jobs.<job-id>.steps[*].name
jobs.<job-id>.steps[*].id
jobs.<job-id>.steps[*].run
jobs.<job-id>.steps[*].shell
jobs.<job-id>.steps[*].working-directory
jobs.<job-id>.steps[*].env
jobs.<job-id>.steps[*].env.<name>
jobs.<job-id>.steps[*].timeout-minutes
jobs.<job-id>.steps[*].continue-on-error
jobs.<job-id>.steps[*].uses
jobs.<job-id>.steps[*].with
jobs.<job-id>.steps[*].with.<input>
"#);
    }

    #[test]
    fn the_committed_reference_is_that_of_the_table() {
        const BEGIN: &str =
            "<!-- The rest is written by a test: HELIOS_BLESS=1 cargo test -p helios-ci --lib workflow::explain -->\n";
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/workflows.md");
        let page = std::fs::read_to_string(path).unwrap();
        let (before, committed) = page.split_once(BEGIN).expect("the mark in docs/workflows.md");
        let now = format!("\n## Reference\n\n{}", reference());
        if std::env::var_os("HELIOS_BLESS").is_some() {
            std::fs::write(path, format!("{before}{BEGIN}{now}")).unwrap();
            return;
        }
        assert!(
            committed == now,
            "docs/workflows.md is not the table's; bless it as its mark says"
        );
    }
}
