//! The data directory is for the daemon's user alone. Whoever uses it, `serve`, `run`, `config check` and `doctor`
//! alike, judges it here.

use std::{
    fs,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
};

use miette::miette;

/// A data directory that others can enter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, miette::Diagnostic)]
#[error("{} has mode {mode:04o}: others can read the logs and keys in it", .path.display())]
#[diagnostic(help("chmod 0700 {}", .path.display()))]
pub(in crate::cli) struct OpenToOthers {
    path: PathBuf,
    mode: u32,
}

/// Judges its mode. It is not changed: a `data_dir` that names a directory of others by mistake must not lock them out.
/// One that is absent, or cannot be inspected, is not judged: whoever uses it says what is wrong.
pub(in crate::cli) fn check(path: &Path) -> Result<(), OpenToOthers> {
    let mode = fs::metadata(path).map_or(0, |meta| meta.permissions().mode() & 0o777);
    match mode & 0o077 {
        0 => Ok(()),
        _ => Err(OpenToOthers {
            path: path.to_owned(),
            mode,
        }),
    }
}

/// Makes it where it is not there yet, and judges it.
pub(in crate::cli) fn make(path: &Path) -> miette::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|e| miette!("cannot make the data directory {}: {e}", path.display()))?;
    Ok(check(path)?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_that_is_made_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        assert_eq!(check(&path), Ok(()));
        make(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        make(&path).unwrap();
    }

    proptest! {
        #[test]
        fn any_right_of_others_is_named_and_left_as_it_is(mode in 0o700u32..=0o777) {
            let dir = tempfile::tempdir().unwrap();
            fs::set_permissions(dir.path(), fs::Permissions::from_mode(mode)).unwrap();
            let made = make(dir.path());
            prop_assert_eq!(made.is_ok(), mode == 0o700);
            if let Err(error) = made {
                let help = miette::Diagnostic::help(&*error).unwrap().to_string();
                prop_assert_eq!(help, format!("chmod 0700 {}", dir.path().display()));
                let said = format!("mode {mode:04o}");
                prop_assert!(error.to_string().contains(&said));
            }
            prop_assert_eq!(fs::metadata(dir.path()).unwrap().permissions().mode() & 0o777, mode);
        }
    }
}
