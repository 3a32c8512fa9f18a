//! Where the tiny guest lies that a run without a configuration boots.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use miette::miette;

/// Names the folder of the guest.
pub(in crate::cli) const GUEST: &str = "HELIOS_CI_GUEST";
/// Names the agent's binary, for runs without a configuration.
pub(in crate::cli) const AGENT: &str = "HELIOS_CI_AGENT";
/// The guest's golden disk, in its folder.
pub(in crate::cli) const DISK: &str = "disk.qcow2";
/// What such a folder holds.
pub(super) const FILES: [&str; 3] = [DISK, "vmlinuz", "initrd.img"];

/// The guest's folder: the named one, that of the environment, the one that `make guest` built in the source of this
/// program, or the one in the user's cache.
pub(in crate::cli) fn find(named: Option<&Path>) -> miette::Result<PathBuf> {
    let from_environment = std::env::var_os(GUEST).map(PathBuf::from);
    // What somebody asked for is used or refused, never passed over.
    for (how, folder) in [("--guest", named), (GUEST, from_environment.as_deref())] {
        if let Some(folder) = folder {
            return whole(folder).map_err(|reason| {
                miette!(
                    help = format!(
                        "`make guest` in helios-ci's source and `helios-ci image pull-tiny` each make one; it holds {}",
                        FILES.join(", ")
                    ),
                    "{how}={}: {reason}",
                    folder.display()
                )
            });
        }
    }
    let built = std::env::current_exe().ok().and_then(|program| source_of(&program));
    let built = built.map(|source| source.join("build/images/tiny"));
    let cached = cache().map(|images| images.join("tiny"));
    let places: Vec<PathBuf> = built.into_iter().chain(cached).collect();
    if let Some(found) = places.iter().find_map(|folder| whole(folder).ok()) {
        return Ok(found);
    }
    let places: Vec<String> = places.iter().map(|place| place.display().to_string()).collect();
    Err(miette!(
        help = format!(
            "`helios-ci image pull-tiny` makes the small guest for this user (on Debian; `make guest` does so in \
             helios-ci's source); --guest or {GUEST} names another's folder, and --config a configuration with images"
        ),
        "there is no image to run in: no configuration, no {GUEST}, and no guest in {}",
        if places.is_empty() {
            "a cache, as HOME is not set".to_owned()
        } else {
            places.join(" or ")
        }
    ))
}

/// A folder with all of its files, by the path that stays when another guest takes its place meanwhile.
fn whole(folder: &Path) -> Result<PathBuf, String> {
    let folder = folder.canonicalize().map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => "no such folder".to_owned(),
        _ => error.to_string(),
    })?;
    match FILES.iter().find(|file| !folder.join(file).is_file()) {
        Some(missing) => Err(format!("it has no {missing}")),
        None => Ok(folder),
    }
}

/// The agent that `make agent` built in the source of this program.
pub(in crate::cli) fn built_agent() -> Option<PathBuf> {
    let source = source_of(&std::env::current_exe().ok()?)?;
    let agent = source.join("target/x86_64-unknown-linux-musl/agent/helios-agent");
    agent.is_file().then_some(agent)
}

/// The source in whose `target` folder cargo put this program.
pub(super) fn source_of(program: &Path) -> Option<PathBuf> {
    let target = program
        .ancestors()
        .find(|folder| folder.file_name().is_some_and(|name| name == "target"))?;
    Some(target.parent()?.to_owned())
}

/// The user's cache of images, by the rules of freedesktop.org; none where no home is known.
pub(in crate::cli) fn cache() -> Option<PathBuf> {
    cache_of(std::env::var_os("XDG_CACHE_HOME"), std::env::var_os("HOME"))
}

fn cache_of(xdg: Option<OsString>, home: Option<OsString>) -> Option<PathBuf> {
    // One that is not absolute counts as unset there.
    let absolute = |dir: Option<OsString>| dir.map(PathBuf::from).filter(|dir| dir.is_absolute());
    let cache = absolute(xdg).or_else(|| Some(absolute(home)?.join(".cache")))?;
    Some(cache.join("helios-ci/images"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_is_where_the_user_keeps_caches() {
        let of = |xdg: Option<&str>, home: Option<&str>| {
            cache_of(xdg.map(Into::into), home.map(Into::into)).map(|path| path.display().to_string())
        };
        let at = |path: &str| Some(format!("{path}/helios-ci/images"));
        assert_eq!(of(Some("/c"), Some("/h")), at("/c"));
        for unset in [None, Some(""), Some("relative")] {
            assert_eq!(of(unset, Some("/h")), at("/h/.cache"));
            assert_eq!(of(unset, unset), None);
        }
    }

    #[test]
    fn a_guest_is_whole_or_named_for_what_it_lacks() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(whole(&folder.path().join("none")), Err("no such folder".to_owned()));
        for file in FILES {
            assert_eq!(whole(folder.path()), Err(format!("it has no {file}")));
            std::fs::write(folder.path().join(file), "x").unwrap();
        }
        assert_eq!(whole(folder.path()), Ok(folder.path().canonicalize().unwrap()));
    }

    #[test]
    fn only_a_program_that_cargo_built_has_a_source() {
        let of = |program: &str| source_of(Path::new(program)).map(|path| path.display().to_string());
        assert_eq!(of("/src/helios/target/debug/helios-ci"), Some("/src/helios".into()));
        assert_eq!(
            of("/src/h/target/x86_64-unknown-linux-musl/release/helios-ci"),
            Some("/src/h".into())
        );
        assert_eq!(of("/opt/helios-ci/bin/helios-ci"), None);
        assert_eq!(
            of("/target"),
            Some("/".into()),
            "where nobody but root could put anything"
        );
    }
}
