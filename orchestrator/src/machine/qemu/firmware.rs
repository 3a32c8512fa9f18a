//! UEFI firmware, for guests that bring their own boot loader. It is mapped read-only and keeps no
//! variables: every machine starts from the fallback path of its disk, as if it had never run.

use std::path::{Path, PathBuf};

use crate::config::{GuestKind, Image};

/// Where distributions put QEMU's UEFI firmware, the code without variables.
const PATHS: &[&str] = &[
    // Debian and Ubuntu: package ovmf.
    "/usr/share/OVMF/OVMF_CODE_4M.fd",
    "/usr/share/OVMF/OVMF_CODE.fd",
    // Fedora and its relatives: package edk2-ovmf.
    "/usr/share/edk2/ovmf/OVMF_CODE.fd",
    // Arch: package edk2-ovmf.
    "/usr/share/edk2/x64/OVMF_CODE.4m.fd",
    // QEMU's own build.
    "/usr/share/qemu/edk2-x86_64-code.fd",
    "/usr/local/share/qemu/edk2-x86_64-code.fd",
];

/// No firmware on this host.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "the guest boots by UEFI and this host has no firmware for it; none of these exists: {paths}; \
     install the package ovmf (edk2-ovmf elsewhere), or give the image a `kernel` or `kind: linux-bios`"
)]
pub struct NoFirmware {
    paths: String,
}

/// Whether machines of this image need UEFI firmware: those that QEMU gives no kernel and that do not
/// boot from a master boot record.
#[must_use]
pub fn is_needed(image: &Image) -> bool {
    image.kernel.is_none() && image.kind != GuestKind::LinuxBios
}

/// This host's firmware.
///
/// # Errors
/// When it is in none of the usual paths.
pub fn find() -> Result<PathBuf, NoFirmware> {
    first_of(PATHS)
}

fn first_of(paths: &[&str]) -> Result<PathBuf, NoFirmware> {
    let found = paths.iter().map(Path::new).find(|path| path.is_file());
    found.map(Path::to_owned).ok_or_else(|| NoFirmware {
        paths: paths.join(", "),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_that_is_there_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("code.fd");
        let path = file.to_str().unwrap();
        let error = first_of(&["/nonexistent/a.fd", path]).unwrap_err().to_string();
        assert!(
            error.contains("/nonexistent/a.fd") && error.contains(path) && error.contains("ovmf"),
            "{error}"
        );
        std::fs::write(&file, b"x").unwrap();
        assert_eq!(first_of(&["/nonexistent/a.fd", path]).unwrap(), file);
    }

    #[test]
    fn every_path_can_stand_in_an_option_of_qemu() {
        assert!(
            PATHS
                .iter()
                .all(|path| super::super::command::is_plain(Path::new(path)))
        );
    }
}
