//! Where workflow files lie. The first place that holds a file is used, alone.

/// One place of a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Every file right in this folder that ends like one of these.
    Folder(&'static str, &'static [&'static str]),
    /// This file.
    File(&'static str),
}

/// The files a commit's runs are made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pick {
    /// Where they were found.
    pub place: Place,
    /// Their paths, in alphabetical order.
    pub files: Vec<String>,
}

const YAML: &[&str] = &[".yml", ".yaml"];
const OWN: Place = Place::Folder(".helios/workflows", &[".yml", ".yaml", ".kdl"]);
const SCRIPTS: [Place; 3] = [
    Place::File(".solstice/workflow.kdl"),
    Place::File(super::script::JCI),
    Place::File(super::script::PICO),
];

/// Where to look, in order, when the forge has these folders of its own for workflow files.
#[must_use]
pub fn places(folders: &[&'static str]) -> Vec<Place> {
    let of_forge = folders.iter().map(|folder| Place::Folder(folder, YAML));
    [OWN].into_iter().chain(of_forge).chain(SCRIPTS).collect()
}

/// What to list in a commit to see which files [`pick`] would take.
#[must_use]
pub fn listed(folders: &[&'static str]) -> Vec<String> {
    let listed = |place: &Place| match place {
        Place::Folder(path, _) => format!("{path}/"),
        Place::File(path) => (*path).to_owned(),
    };
    places(folders).iter().map(listed).collect()
}

/// The workflow files among the paths of a commit; `None` when there are none.
#[must_use]
pub fn pick<'p>(folders: &[&'static str], paths: impl IntoIterator<Item = &'p str> + Clone) -> Option<Pick> {
    places(folders).into_iter().find_map(|place| {
        let mut files: Vec<String> = paths
            .clone()
            .into_iter()
            .filter(|path| place.holds(path))
            .map(str::to_owned)
            .collect();
        files.sort();
        files.dedup();
        (!files.is_empty()).then_some(Pick { place, files })
    })
}

impl Place {
    /// What to list in a commit to see whether anything is here.
    #[must_use]
    pub fn path(&self) -> &'static str {
        match self {
            Self::Folder(path, _) | Self::File(path) => path,
        }
    }

    fn holds(&self, path: &str) -> bool {
        match self {
            Self::File(own) => path == *own,
            Self::Folder(folder, endings) => path
                .strip_prefix(folder)
                .and_then(|rest| rest.strip_prefix('/'))
                .is_some_and(|name| {
                    !name.contains('/') && endings.iter().any(|e| name.len() > e.len() && name.ends_with(e))
                }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forge::{FORGEJO_WORKFLOWS, GITHUB_WORKFLOWS};

    fn files(forge: &[&'static str], paths: &[&str]) -> Vec<String> {
        pick(forge, paths.iter().copied()).map(|p| p.files).unwrap_or_default()
    }

    #[test]
    fn the_first_place_that_holds_a_file_is_used_alone() {
        let all = [
            "pico.sh",
            ".jci/run.sh",
            ".github/workflows/b.yaml",
            ".github/workflows/a.yml",
            ".github/workflows/sub/c.yml",
            ".github/workflows/notes.md",
            ".gitea/workflows/g.yml",
            ".forgejo/workflows/f.yml",
            ".helios/workflows/own.kdl",
        ];
        assert_eq!(files(GITHUB_WORKFLOWS, &all), [".helios/workflows/own.kdl"]);
        assert_eq!(
            files(GITHUB_WORKFLOWS, &all[..8]),
            [".github/workflows/a.yml", ".github/workflows/b.yaml"]
        );
        assert_eq!(files(FORGEJO_WORKFLOWS, &all[..8]), [".forgejo/workflows/f.yml"]);
        assert_eq!(files(FORGEJO_WORKFLOWS, &all[..7]), [".gitea/workflows/g.yml"]);
        assert_eq!(
            files(FORGEJO_WORKFLOWS, &all[..6]),
            [".github/workflows/a.yml", ".github/workflows/b.yaml"]
        );
        assert_eq!(files(GITHUB_WORKFLOWS, &all[..2]), [".jci/run.sh"]);
        assert_eq!(files(GITHUB_WORKFLOWS, &all[..1]), ["pico.sh"]);
        assert_eq!(
            pick(GITHUB_WORKFLOWS, ["src/main.rs", ".github/workflows/.yml", "x/pico.sh"]),
            None
        );
    }
}
