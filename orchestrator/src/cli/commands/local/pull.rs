//! `helios-ci image pull-tiny`: the small guest in the user's cache, from the recipe that this program carries, for
//! whoever has installed helios-ci and not its source.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use miette::miette;

use super::guest;
use crate::{
    cli::{Exit, Outcome, report},
    exec::Cmd,
};

/// The files of `images/tiny`, by their paths there.
const RECIPE: &[(&str, &str)] = &[
    ("build.sh", include_str!("../../../../../images/tiny/build.sh")),
    ("packages", include_str!("../../../../../images/tiny/packages")),
    ("initrd/init", include_str!("../../../../../images/tiny/initrd/init")),
    (
        "initrd/modules",
        include_str!("../../../../../images/tiny/initrd/modules"),
    ),
    (
        "rootfs/etc/inittab",
        include_str!("../../../../../images/tiny/rootfs/etc/inittab"),
    ),
    (
        "rootfs/etc/init.d/rcS",
        include_str!("../../../../../images/tiny/rootfs/etc/init.d/rcS"),
    ),
    (
        "rootfs/usr/lib/helios-ci/start-agent",
        include_str!("../../../../../images/tiny/rootfs/usr/lib/helios-ci/start-agent"),
    ),
];

/// Builds it, or sees that it is up to date.
pub(in crate::cli) async fn run() -> Outcome {
    if cfg!(not(target_os = "linux")) {
        return Err(miette!(
            help = "docs/illumos.md says how a zone host gets its images",
            "the tiny guest boots under QEMU on Linux only"
        ));
    }
    let cache = guest::cache().ok_or_else(|| {
        miette!(
            help = "set HOME, or XDG_CACHE_HOME to an absolute path",
            "no home is known, so there is no cache to put the guest into"
        )
    })?;
    let recipe = tempfile::tempdir().map_err(|e| miette!("cannot make a folder for the recipe: {e}"))?;
    write(recipe.path()).map_err(|e| miette!("cannot write the recipe into {}: {e}", recipe.path().display()))?;
    // Beside the cache's images, so that they can share the bytes.
    let build = cache.with_file_name("build").join("tiny");
    let cmd = Cmd::new("sh")
        .envs(std::env::vars_os())
        .arg(recipe.path().join("build.sh"))
        .arg(&build)
        .arg(&cache);
    let mut child = cmd.attended().map_err(report)?;
    drop(child.stdin.take());
    if let Some(mut said) = child.stdout.take() {
        let copied = tokio::io::copy(&mut said, &mut tokio::io::stdout()).await;
        copied.map_err(|e| miette!("cannot show what the recipe says: {e}"))?;
    }
    let status = child.wait().await.map_err(|e| miette!("lost the recipe: {e}"))?;
    if !status.success() {
        return Err(miette!(
            help = "the recipe said above what it lacks",
            "the tiny guest was not built ({status})"
        ));
    }
    if !on_path("qemu-system-x86_64") || !on_path("qemu-img") {
        println!(
            "`helios-ci run` also needs QEMU, which is not installed: the packages qemu-system-x86 and qemu-utils"
        );
    } else {
        println!("`helios-ci run` in a git working tree uses it from now on");
    }
    Ok(Exit::Success)
}

fn write(folder: &Path) -> std::io::Result<()> {
    for (path, text) in RECIPE {
        let path = folder.join(path);
        fs::create_dir_all(path.parent().unwrap_or(folder))?;
        fs::write(&path, text)?;
        let mode = if text.starts_with("#!") { 0o755 } else { 0o644 };
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
    }
    Ok(())
}

fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn files(folder: &Path, below: &Path, found: &mut BTreeSet<String>) {
        for entry in fs::read_dir(below).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                files(folder, &path, found);
            } else {
                found.insert(path.strip_prefix(folder).unwrap().display().to_string());
            }
        }
    }

    /// A file that is added to the recipe would otherwise be missing in what is built without the source.
    #[test]
    fn the_program_carries_the_whole_recipe() {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../images/tiny");
        let copy = tempfile::tempdir().unwrap();
        write(copy.path()).unwrap();
        let (mut wanted, mut carried) = (BTreeSet::new(), BTreeSet::new());
        files(&source, &source, &mut wanted);
        files(copy.path(), copy.path(), &mut carried);
        assert_eq!(carried, wanted);
        for path in carried {
            let executable = |folder: &Path| fs::metadata(folder.join(&path)).unwrap().permissions().mode() & 0o100;
            assert_eq!(
                fs::read(copy.path().join(&path)).unwrap(),
                fs::read(source.join(&path)).unwrap(),
                "{path}"
            );
            assert_eq!(executable(copy.path()), executable(&source), "{path}");
        }
    }
}
