//! Whether KVM can be trusted on this host. The device node says little: there are hosts where it
//! opens and guests hang. So a tiny guest is booted, once per host boot, QEMU and kernel.

use std::{
    io,
    path::Path,
    time::{Duration, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

use super::SYSTEM;
use crate::{
    exec::{Cmd, ExecError},
    machine::files,
};

/// What runs the guest's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accel {
    /// The processor.
    Kvm,
    /// An emulator: slow, and works everywhere.
    Tcg,
}

/// How long the probe guest may take; under a KVM that works it takes about one second.
const DEADLINE: Duration = Duration::from_secs(20);
/// What the tiny guest's initrd says when `helios.probe` is on its command line.
const PROOF: &str = "helios-probe-ok";

/// The remembered answer.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Answer {
    /// What the answer depends on.
    key: String,
    accel: Accel,
}

/// Finds out, or remembers, whether guests run under KVM here. `kernel` and `initrd` are the tiny
/// guest's (`images/tiny`), whose initrd knows `helios.probe`; any other never proves anything.
///
/// # Errors
/// When QEMU cannot be run at all, or the answer cannot be stored.
pub async fn probe(data_dir: &Path, kernel: &Path, initrd: &Path) -> Result<Accel, ExecError> {
    probe_with(data_dir, kernel, initrd, Path::new("/dev/kvm"), "kvm").await
}

async fn probe_with(
    data_dir: &Path,
    kernel: &Path,
    initrd: &Path,
    device: &Path,
    accel: &str,
) -> Result<Accel, ExecError> {
    // The usual case, not worth remembering: no device, or not for us.
    if std::fs::File::options().read(true).write(true).open(device).is_err() {
        return Ok(Accel::Tcg);
    }
    let version = Cmd::new(SYSTEM).arg("--version").run().await?.ok()?.text();
    let key = key(version.lines().next().unwrap_or_default(), kernel, initrd);
    let file = data_dir.join("accel.json");
    let lost = |source| ExecError::Io {
        command: format!("the answer in {}", file.display()),
        source,
    };
    let known = files::read_bounded(&file, 64 * 1024).map_err(lost)?;
    // An answer that cannot be read is as good as none: the guest is booted again.
    if let Some(answer) = known.and_then(|bytes| serde_json::from_slice::<Answer>(&bytes).ok())
        && answer.key == key
    {
        return Ok(answer.accel);
    }
    let answer = Answer {
        key,
        accel: boot(kernel, initrd, accel).await?,
    };
    files::private_dir(data_dir).map_err(lost)?;
    let bytes = serde_json::to_vec(&answer).map_err(|error| lost(error.into()))?;
    files::write_atomic(&file, &bytes).map_err(lost)?;
    Ok(answer.accel)
}

async fn boot(kernel: &Path, initrd: &Path, accel: &str) -> Result<Accel, ExecError> {
    let cmd = Cmd::new(SYSTEM)
        .args([
            "-nodefaults",
            "-no-user-config",
            "-no-reboot",
            "-display",
            "none",
            "-m",
            "256M",
        ])
        .args(["-machine", &format!("q35,accel={accel}"), "-cpu", "max"])
        .args(["-serial", "stdio", "-append", "console=ttyS0 panic=-1 helios.probe"])
        .arg("-kernel")
        .arg(kernel)
        .arg("-initrd")
        .arg(initrd)
        .deadline(DEADLINE);
    let why = match cmd.run().await {
        Ok(output) if output.code == Some(0) && output.text().contains(PROOF) => return Ok(Accel::Kvm),
        Ok(output) => format!("the guest ended without reaching user space: {}", output.stderr_tail()),
        Err(error @ ExecError::Deadline { .. }) => error.to_string(),
        Err(error) => return Err(error),
    };
    tracing::warn!(why, "KVM is there but no guest runs under it; guests are emulated");
    Ok(Accel::Tcg)
}

/// Everything that may change the answer.
fn key(qemu: &str, kernel: &Path, initrd: &Path) -> String {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let mut key = format!("{} | {qemu}", boot.trim());
    for file in [kernel, initrd] {
        key.push_str(&format!(" | {} {}", file.display(), identity(file).unwrap_or_default()));
    }
    key
}

fn identity(file: &Path) -> io::Result<String> {
    let meta = std::fs::metadata(file)?;
    let changed = meta.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(format!("{} {}", meta.len(), changed.as_nanos()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn without_a_device_guests_are_emulated_and_nothing_is_asked() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("none");
        let accel = probe_with(dir.path(), &missing, &missing, &missing, "kvm")
            .await
            .unwrap();
        assert_eq!(accel, Accel::Tcg);
        assert!(!dir.path().join("accel.json").exists());
    }

    #[tokio::test]
    async fn a_guest_that_proves_nothing_means_emulation_and_the_answer_is_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let (kernel, device) = (dir.path().join("kernel"), dir.path().join("kvm"));
        std::fs::write(&kernel, b"not a kernel").unwrap();
        std::fs::write(&device, b"").unwrap();
        let accel = probe_with(dir.path(), &kernel, &kernel, &device, "tcg").await.unwrap();
        assert_eq!(accel, Accel::Tcg);
        let file = dir.path().join("accel.json");
        let mut answer: Answer = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        // Another stored answer shows that it is the stored one that is given.
        answer.accel = Accel::Kvm;
        std::fs::write(&file, serde_json::to_vec(&answer).unwrap()).unwrap();
        assert_eq!(
            probe_with(dir.path(), &kernel, &kernel, &device, "tcg").await.unwrap(),
            Accel::Kvm
        );
        // Another kernel is another question.
        std::fs::write(&kernel, b"not a kernel either").unwrap();
        assert_eq!(
            probe_with(dir.path(), &kernel, &kernel, &device, "tcg").await.unwrap(),
            Accel::Tcg
        );
    }
}
