//! Rules about the code itself: which module may know which, how long a file may be, and that the
//! documents say what the code does.

mod deadlines;
mod evidence;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use helios_ci::model::state::{AttemptState, IntakeState, JobState, MachineState, RunState, StepState};

fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn rust_files(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("a folder of sources").flatten() {
        let path = entry.path();
        if path.is_dir() {
            rust_files(&path, files);
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
}

fn sources() -> Vec<PathBuf> {
    let mut files = Vec::new();
    for dir in [
        "orchestrator/src",
        "orchestrator/demo/src",
        "orchestrator/fakeforge/src",
        "orchestrator/illumos-sim/src",
        "agent/src",
        "proto/src",
    ] {
        rust_files(&project().join(dir), &mut files);
    }
    files
}

/// What is below what: a module may use modules of lower ranks only.
const RANKS: &[(u32, &[&str])] = &[
    (0, &["clock", "digest", "error_chain", "foreign_text"]),
    (
        1,
        &[
            "connector",
            "secret",
            "exec",
            "expression",
            "failpoint",
            "files",
            "model",
            "yaml",
        ],
    ),
    (2, &["workflow", "config", "queue", "seal"]),
    (3, &["images", "logs", "store", "telemetry", "forge"]),
    (4, &["machine", "source", "intake"]),
    (5, &["agent_api", "reporter"]),
    (6, &["daemon"]),
    (7, &["driver"]),
    (8, &["planner", "scheduler", "janitor", "node"]),
    (9, &["web"]),
    (10, &["cli"]),
];

#[test]
fn modules_depend_downwards() {
    let ranks: BTreeMap<&str, u32> = RANKS
        .iter()
        .flat_map(|(rank, names)| names.iter().map(move |name| (*name, *rank)))
        .collect();
    let root = project().join("orchestrator/src");
    let mut wrong = Vec::new();
    let mut files = Vec::new();
    rust_files(&root, &mut files);
    for file in files {
        let relative = file.strip_prefix(&root).expect("below the root");
        let module = relative
            .iter()
            .next()
            .and_then(|part| part.to_str())
            .unwrap_or_default()
            .trim_end_matches(".rs")
            .to_owned();
        if matches!(module.as_str(), "lib" | "main") {
            continue;
        }
        let is_test = relative
            .iter()
            .any(|part| matches!(part.to_str(), Some("tests.rs" | "tests" | "testing.rs" | "test")));
        if is_test {
            continue;
        }
        let text = fs::read_to_string(&file).expect("a source");
        // Unit tests may use whatever they need.
        let text = without_tests(&text);
        let mine = *ranks.get(module.as_str()).unwrap_or_else(|| {
            panic!("{module} has no place in the order; give it one here and in docs/architecture.md")
        });
        for (name, rank) in &ranks {
            let used = text.contains(&format!("crate::{name}::")) || uses_in_braces(text, name);
            let allowed = *name == module || *rank < mine;
            if used && !allowed {
                wrong.push(format!("{} uses {name}", relative.display()));
            }
        }
        // What decides knows ports, never the adapters behind them.
        if matches!(module.as_str(), "driver" | "planner" | "scheduler") {
            for adapter in [
                "machine::qemu",
                "machine::process",
                "machine::zone",
                "machine::local",
                "machine::machined",
                "forge::github",
                "forge::forgejo",
            ] {
                if text.contains(adapter) {
                    wrong.push(format!("{} knows the adapter {adapter}", relative.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// A source without its unit tests, when they stand in it; `mod tests;` is a file of its own.
fn without_tests(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default()
}

/// Whether `use crate::{… name::… }` appears, over several lines or one.
fn uses_in_braces(text: &str, name: &str) -> bool {
    text.split("use crate::{").skip(1).any(|rest| {
        let (mut depth, mut word, mut top) = (1, String::new(), Vec::new());
        for c in rest.chars() {
            match c {
                '{' => depth += 1,
                '}' => {
                    depth -= 1;
                    if depth == 0 {
                        break;
                    }
                }
                ',' if depth == 1 => top.push(std::mem::take(&mut word)),
                c if depth == 1 && !c.is_whitespace() => word.push(c),
                _ => {}
            }
        }
        top.push(word);
        top.iter()
            .any(|word| word == name || word.starts_with(&format!("{name}::")))
    })
}

/// The libraries that a program asks the system's loader for.
fn needed_libraries(program: &[u8]) -> object::read::Result<Vec<String>> {
    use object::{Endianness, elf::FileHeader64, read::elf::FileHeader as _};

    let header = FileHeader64::<Endianness>::parse(program)?;
    let endian = header.endian()?;
    let sections = header.sections(endian, program)?;
    let dynamic = sections.dynamic_table(endian, program)?;
    dynamic
        .iter()
        .filter(|entry| entry.tag == object::elf::DT_NEEDED)
        .map(|entry| Ok(String::from_utf8_lossy(dynamic.string(entry)?).into_owned()))
        .collect()
}

/// gitea-sdk brings OpenSSL along: where anything called it, the program would need libssl here.
#[test]
fn the_program_needs_nothing_but_the_systems_own_libraries() {
    let program = fs::read(env!("CARGO_BIN_EXE_helios-ci")).expect("the program");
    let needed = needed_libraries(&program).expect("an ELF file");
    // Of the GNU system and of illumos; what an older release of theirs has apart from libc, too.
    let system = [
        "c", "dl", "gcc_s", "m", "pthread", "rt", "nsl", "resolv", "sendfile", "socket", "umem",
    ];
    let is_the_systems = |name: &String| {
        let short = name.strip_prefix("lib").and_then(|name| name.split(".so").next());
        name.starts_with("ld-linux") || short.is_some_and(|short| system.contains(&short))
    };
    assert!(needed.iter().any(|name| name.starts_with("libc.so")), "{needed:?}");
    assert!(needed.iter().all(is_the_systems), "{needed:?}");
}

#[test]
fn no_file_outgrows_its_idea() {
    let mut long = Vec::new();
    for file in sources() {
        let is_test = file
            .iter()
            .any(|part| matches!(part.to_str(), Some("tests" | "tests.rs" | "testing.rs")));
        let text = fs::read_to_string(&file).expect("a source");
        let lines = without_tests(&text).lines().count();
        if !is_test && lines > 800 {
            long.push(format!("{}: {lines} lines", file.display()));
        } else if !is_test && lines > 500 {
            println!("getting long: {}: {lines} lines", file.display());
        }
    }
    assert!(long.is_empty(), "{long:#?}");
}

#[test]
fn nothing_is_left_behind() {
    // Put together here, so that this file does not find itself.
    let words = ["TO", "FIX", "XX"].map(|w| match w {
        "TO" => format!("{w}DO"),
        "FIX" => format!("{w}ME"),
        _ => format!("{w}X:"),
    });
    let mut found = Vec::new();
    for file in sources() {
        let text = fs::read_to_string(&file).expect("a source");
        for word in &words {
            if text.contains(word.as_str()) {
                found.push(format!("{}: {word}", file.display()));
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn proofs_of_ownership_are_not_assumed() {
    let mut assumed = Vec::new();
    for file in sources() {
        let path = file.display().to_string();
        let Some((_, name)) = path.rsplit_once("orchestrator/src/") else {
            continue;
        };
        let text = fs::read_to_string(&file).expect("a source");
        let code = without_tests(&text);
        if code.contains("Owned::assumed(") {
            assumed.push(name.to_owned());
        }
        // Whoever says so by a rule is one of few, who look first, or made it under a name that nobody had.
        let rules = [
            "life/destroy",
            "golden",
            "host",
            "setup/rehearsal/configuration",
            "setup/scratch",
        ]
        .map(|file| format!("machine/zone/{file}.rs"));
        assert!(
            !code.contains("Owned::by_rule(") || rules.iter().any(|rule| rule == name),
            "{path}"
        );
    }
    assert_eq!(
        assumed,
        ["machine/zone/life/plan.rs"],
        "only what is shown and never run may be assumed to be ours"
    );
}

#[test]
fn the_top_level_is_what_the_design_says() {
    let known = [
        "Cargo.toml",
        "Cargo.lock",
        "README.md",
        "LICENSE",
        "Makefile",
        "orchestrator",
        "agent",
        "proto",
        "smf",
        "images",
        "docs",
        "clippy.toml",
        "deny.toml",
        "rustfmt.toml",
        "rust-toolchain.toml",
        "target",
        "build",
    ];
    for entry in fs::read_dir(project()).expect("the project").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        assert!(
            name.starts_with('.') || known.contains(&name.as_str()),
            "`{name}` does not belong at the top level"
        );
    }
}

/// The lines that a diagram of docs/architecture.md must hold.
macro_rules! diagram {
    ($state:ty) => {
        <$state>::ALL
            .iter()
            .map(|state| {
                let next: Vec<&str> = state.next().iter().map(|s| s.as_str()).collect();
                format!("{} -> {}", state.as_str(), next.join(", "))
                    .trim_end()
                    .to_owned()
            })
            .collect::<Vec<String>>()
    };
}

#[test]
fn the_diagrams_are_the_code() {
    let text = fs::read_to_string(project().join("docs/architecture.md")).expect("docs/architecture.md");
    let diagrams = [
        ("Delivery and trigger", diagram!(IntakeState)),
        ("Run attempt", diagram!(RunState)),
        ("Job", diagram!(JobState)),
        ("Attempt", diagram!(AttemptState)),
        ("Step", diagram!(StepState)),
        ("Machine", diagram!(MachineState)),
    ];
    for (title, wanted) in diagrams {
        let section = text
            .split(&format!("### {title}\n"))
            .nth(1)
            .unwrap_or_else(|| panic!("no section `{title}`"));
        let block = section
            .split("```text\n")
            .nth(1)
            .and_then(|rest| rest.split("```").next())
            .expect("a diagram");
        let found: Vec<String> = block.lines().map(|line| line.trim_end().to_owned()).collect();
        assert_eq!(found, wanted, "the diagram of `{title}` in docs/architecture.md");
    }
}

#[test]
fn the_documented_order_of_modules_is_that_of_the_code() {
    let text = fs::read_to_string(project().join("docs/architecture.md")).expect("docs/architecture.md");
    for (rank, names) in RANKS {
        let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
        let row = format!("| {rank} | {} |", names.join(" "));
        assert!(text.contains(&row), "docs/architecture.md has no row {row}");
    }
}

#[test]
fn every_test_that_the_documents_name_exists() {
    let mut text = String::new();
    for entry in fs::read_dir(project().join("docs")).expect("the documents").flatten() {
        if entry.path().extension().is_some_and(|e| e == "md") {
            text.push_str(&fs::read_to_string(entry.path()).expect("a document"));
        }
    }
    let mut all = String::new();
    let mut files = Vec::new();
    for dir in [
        "orchestrator/src",
        "orchestrator/tests",
        "orchestrator/fakeforge",
        "agent",
        "proto",
    ] {
        rust_files(&project().join(dir), &mut files);
    }
    for file in files {
        all.push_str(&fs::read_to_string(file).expect("a source"));
    }
    // A line may end between the two words.
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    for name in text.split("test `").skip(1).filter_map(|rest| rest.split('`').next()) {
        assert!(
            all.contains(&format!("fn {name}(")),
            "a document names the test `{name}`, which does not exist"
        );
    }
}

#[test]
fn links_between_documents_lead_somewhere() {
    let mut documents = vec![project().join("README.md"), project().join("images/README.md")];
    documents.extend(
        fs::read_dir(project().join("docs"))
            .expect("docs")
            .flatten()
            .map(|e| e.path())
            .filter(|p| p.extension().is_some_and(|e| e == "md")),
    );
    for document in documents {
        let text = fs::read_to_string(&document).expect("a document");
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let path = target.split('#').next().unwrap_or_default();
            if path.is_empty() || path.contains("://") {
                continue;
            }
            let there = document.parent().expect("a folder").join(path);
            assert!(there.exists(), "{}: {target} does not exist", document.display());
        }
    }
}
