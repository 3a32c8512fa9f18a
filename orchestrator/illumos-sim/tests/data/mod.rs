//! Conformance data: cases that others wrote, in a folder outside the project.

use std::{fs, path::PathBuf};

use serde::de::DeserializeOwned;

/// The cases of a file of JSON lines in the folder that `HELIOS_CI_CONFORMANCE` names; none where there is no such
/// file, which is said.
pub fn cases<T: DeserializeOwned>(file: &str) -> Option<Vec<T>> {
    let folder = std::env::var_os("HELIOS_CI_CONFORMANCE").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/conformance"),
        PathBuf::from,
    );
    let Ok(text) = fs::read_to_string(folder.join(file)) else {
        // `make test-full` skips nothing.
        assert!(
            std::env::var_os("HELIOS_CI_FULL").is_none(),
            "no conformance data: {file}"
        );
        println!("skipped: no conformance data ({file})");
        return None;
    };
    Some(text.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}
