//! Whether KVM can be trusted on this host. The device node says little: there are hosts where it
//! opens and guests hang. So a tiny guest is booted, once per host boot, QEMU and kernel.

use std::{
    fmt, io,
    path::Path,
    time::{Duration, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

use crate::{
    config::Image,
    exec::{Cmd, ExecError},
    files,
};

/// What runs the guest's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accel {
    /// The processor.
    Kvm,
    /// An emulator: slow, and works everywhere.
    Tcg,
}

/// QEMU's program.
pub(super) const SYSTEM: &str = "qemu-system-x86_64";
const DEVICE: &str = "/dev/kvm";
/// How long the probe guest may take; under a KVM that works it takes about one second.
const DEADLINE: Duration = Duration::from_secs(20);
/// What the tiny guest's initrd says when `helios.probe` is on its command line.
const PROOF: &str = "helios-probe-ok";

/// Whether guests run under KVM here, and why not: for the daemon, which goes by it, and for `doctor`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// A guest of ours ran under it.
    Runs,
    /// The device cannot be opened by this user: the system's word.
    NoDevice(String),
    /// No image has a kernel and an initrd to try it with.
    Untried,
    /// The device opens and no guest ran: what became of it.
    NoGuest(String),
}

impl Verdict {
    /// What runs the guests' instructions.
    #[must_use]
    pub fn accel(&self) -> Accel {
        match self {
            Self::Runs => Accel::Kvm,
            Self::NoDevice(_) | Self::Untried | Self::NoGuest(_) => Accel::Tcg,
        }
    }

    /// What an administrator does for fast guests; none when they are fast.
    #[must_use]
    pub fn fix(&self) -> Option<&'static str> {
        match self {
            Self::Runs => None,
            Self::NoDevice(_) => Some("usermod -aG kvm helios-ci, on a host with virtualisation"),
            Self::Untried => Some("add the tiny guest to `images:` (`make guest`): KVM is tried with it"),
            Self::NoGuest(_) => Some(
                "the first image with `kernel` and `initrd` has to be the tiny guest; where it is, this host's KVM is at \
                 fault: is it a virtual machine itself?",
            ),
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SLOW: &str = "guests are emulated, which is slow";
        match self {
            Self::Runs => f.write_str("a guest ran under KVM"),
            Self::NoDevice(why) => write!(f, "{DEVICE}: {why}; {SLOW}"),
            Self::Untried => write!(f, "{DEVICE} opens, but no image can try it; {SLOW}"),
            Self::NoGuest(why) => write!(f, "{DEVICE} opens, but no guest runs under it ({why}); {SLOW}"),
        }
    }
}

/// The remembered answer.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Answer {
    /// What the answer depends on.
    key: String,
    verdict: Verdict,
}

/// Whether the answer of a trial is stored for the next who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remember {
    /// The daemon stores it.
    Yes,
    /// An inspection does not.
    No,
}

/// Finds out, or remembers, whether guests run under KVM here. It is tried with the first image that has a kernel and
/// an initrd; they must be the tiny guest's (`images/tiny`), whose initrd knows `helios.probe`: any other proves
/// nothing.
///
/// # Errors
/// When QEMU cannot be run at all, or the answer cannot be read or stored.
pub async fn decide<'a>(
    data_dir: &Path,
    images: impl IntoIterator<Item = &'a Image>,
    remember: Remember,
) -> Result<Verdict, ExecError> {
    let direct = images
        .into_iter()
        .find_map(|image| image.kernel.as_deref().zip(image.initrd.as_deref()));
    decide_with(data_dir, direct, remember, Path::new(DEVICE), "kvm").await
}

async fn decide_with(
    data_dir: &Path,
    direct: Option<(&Path, &Path)>,
    remember: Remember,
    device: &Path,
    accel: &str,
) -> Result<Verdict, ExecError> {
    // The usual case, not worth remembering: no device, or not for us.
    if let Err(error) = std::fs::File::options().read(true).write(true).open(device) {
        return Ok(Verdict::NoDevice(error.to_string()));
    }
    let Some((kernel, initrd)) = direct else {
        return Ok(Verdict::Untried);
    };
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
        return Ok(answer.verdict);
    }
    let answer = Answer {
        key,
        verdict: boot(kernel, initrd, accel).await?,
    };
    if remember == Remember::Yes {
        files::private_dir(data_dir).map_err(lost)?;
        let bytes = serde_json::to_vec(&answer).map_err(|error| lost(error.into()))?;
        files::write_private(&file, &bytes).map_err(lost)?;
    }
    Ok(answer.verdict)
}

async fn boot(kernel: &Path, initrd: &Path, accel: &str) -> Result<Verdict, ExecError> {
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
    Ok(match cmd.run().await {
        Ok(output) if output.code == Some(0) && output.text().contains(PROOF) => Verdict::Runs,
        Ok(output) => Verdict::NoGuest(format!(
            "it ended without reaching user space: {}",
            output.stderr_tail()
        )),
        Err(error @ ExecError::Deadline { .. }) => Verdict::NoGuest(error.to_string()),
        Err(error) => return Err(error),
    })
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

    async fn decided(dir: &Path, kernel: &Path, device: &Path, remember: Remember) -> Verdict {
        decide_with(dir, Some((kernel, kernel)), remember, device, "tcg")
            .await
            .unwrap()
    }

    #[tokio::test]
    async fn without_a_device_or_a_guest_to_try_it_with_guests_are_emulated() {
        let dir = tempfile::tempdir().unwrap();
        let (missing, device) = (dir.path().join("none"), dir.path().join("kvm"));
        let verdict = decided(dir.path(), &missing, &missing, Remember::Yes).await;
        assert!(matches!(verdict, Verdict::NoDevice(_)), "{verdict:?}");
        std::fs::write(&device, b"").unwrap();
        let verdict = decide_with(dir.path(), None, Remember::Yes, &device, "tcg")
            .await
            .unwrap();
        assert_eq!((&verdict, verdict.accel()), (&Verdict::Untried, Accel::Tcg));
        assert!(!dir.path().join("accel.json").exists());
    }

    #[tokio::test]
    async fn a_guest_that_proves_nothing_means_emulation_and_the_daemons_answer_is_everybodys() {
        let dir = tempfile::tempdir().unwrap();
        let (kernel, device) = (dir.path().join("kernel"), dir.path().join("kvm"));
        std::fs::write(&kernel, b"not a kernel").unwrap();
        std::fs::write(&device, b"").unwrap();
        let file = dir.path().join("accel.json");
        // An inspection leaves nothing behind.
        let inspected = decided(dir.path(), &kernel, &device, Remember::No).await;
        assert!(
            matches!(inspected, Verdict::NoGuest(_)) && !file.exists(),
            "{inspected:?}"
        );
        assert_eq!(inspected.accel(), Accel::Tcg);
        assert_eq!(decided(dir.path(), &kernel, &device, Remember::Yes).await, inspected);
        let mut answer: Answer = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        // Another stored answer shows that it is the stored one that is given, to the daemon and to an inspection.
        answer.verdict = Verdict::Runs;
        std::fs::write(&file, serde_json::to_vec(&answer).unwrap()).unwrap();
        for remember in [Remember::Yes, Remember::No] {
            assert_eq!(decided(dir.path(), &kernel, &device, remember).await, Verdict::Runs);
        }
        // Another kernel is another question.
        std::fs::write(&kernel, b"not a kernel either").unwrap();
        let verdict = decided(dir.path(), &kernel, &device, Remember::Yes).await;
        assert!(matches!(verdict, Verdict::NoGuest(_)), "{verdict:?}");
    }

    #[test]
    fn every_verdict_but_the_good_one_says_that_guests_are_slow_and_what_to_do() {
        let why = || "why".to_owned();
        for verdict in [Verdict::NoDevice(why()), Verdict::Untried, Verdict::NoGuest(why())] {
            assert!(verdict.to_string().contains("emulated, which is slow"), "{verdict}");
            assert!(verdict.fix().is_some() && verdict.accel() == Accel::Tcg, "{verdict}");
        }
        assert_eq!((Verdict::Runs.accel(), Verdict::Runs.fix()), (Accel::Kvm, None));
    }
}
