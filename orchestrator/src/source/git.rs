//! The one place that builds git commands.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::ExitStatus,
    time::{Duration, Instant},
};

use tempfile::NamedTempFile;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::Child,
};

use super::{SourceError, make_private};
use crate::{
    exec::{Cmd, ExecError, Output},
    foreign_text::tail_as_line,
    forge::FetchAccess,
};

/// A command on what is already here.
pub(super) const LOCAL_DEADLINE: Duration = Duration::from_secs(300);
/// How often the size of a fetch is measured while it runs.
const TICK: Duration = Duration::from_millis(200);

/// How git may talk to where it fetches from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    /// Nothing is fetched.
    None,
    /// From a forge.
    Https,
    /// From a forge whose connection is configured so.
    Http,
    /// From a mirror of ours.
    File,
}

/// A git command in a repository. Everything that comes from outside follows as arguments behind
/// `--end-of-options`, which the callers write where the subcommand's own options end.
pub(super) fn git(repository: &Path, protocol: Protocol, subcommand: &str) -> Cmd {
    let mut cmd = Cmd::new("git")
        .deadline(LOCAL_DEADLINE)
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_ATTR_NOSYSTEM", "1")
        .env("GIT_LITERAL_PATHSPECS", "1")
        .env("GIT_NO_LAZY_FETCH", "1")
        .env("GIT_OPTIONAL_LOCKS", "0");
    let settings = [
        "core.hooksPath=/dev/null",
        "core.askPass=",
        "core.fsmonitor=false",
        "credential.helper=",
        "protocol.allow=never",
        "protocol.version=2",
        "submodule.recurse=false",
        "fetch.recurseSubmodules=false",
        // Everything stays in packs, so that the size of a mirror is the size of one folder.
        "fetch.unpackLimit=1",
        "gc.auto=0",
        "maintenance.auto=false",
        "http.followRedirects=false",
        "http.lowSpeedLimit=1000",
        "http.lowSpeedTime=60",
        "pack.threads=1",
    ];
    for setting in settings {
        cmd = cmd.args(["-c", setting]);
    }
    let allow = match protocol {
        Protocol::None => None,
        Protocol::Https => Some("protocol.https.allow=always"),
        Protocol::Http => Some("protocol.http.allow=always"),
        Protocol::File => Some("protocol.file.allow=always"),
    };
    if let Some(allow) = allow {
        cmd = cmd.args(["-c", allow]);
    }
    cmd.arg("--git-dir").arg(repository).arg(subcommand)
}

/// The files of [`authorised`] begin so.
pub(super) const CREDENTIAL: &str = ".credential-";

/// The command again, with the forge's credential, sent to this URL alone. It stands in a private file
/// that lives as long as what is returned: arguments and environments are shown by `/proc` and `ps`.
pub(super) fn authorised(
    cmd: Cmd,
    access: &FetchAccess,
    dir: &Path,
) -> Result<(Cmd, Option<NamedTempFile>), SourceError> {
    let Some(authorization) = &access.authorization else {
        return Ok((cmd, None));
    };
    make_private(dir)?;
    let quoted = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
    let write = || {
        let mut file = tempfile::Builder::new().prefix(CREDENTIAL).tempfile_in(dir)?;
        writeln!(
            file,
            "[http \"{}\"]\n\textraHeader = \"Authorization: {}\"",
            quoted(&access.url),
            quoted(authorization.expose())
        )?;
        Ok(file)
    };
    let file = write().map_err(|source| SourceError::io("write a credential for git in", dir, source))?;
    Ok((cmd.env("GIT_CONFIG_GLOBAL", file.path()), Some(file)))
}

/// Removes the credentials that a killed daemon left.
pub(super) fn forget_credentials(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(CREDENTIAL)
            && let Err(error) = fs::remove_file(entry.path())
        {
            tracing::warn!(file = %entry.path().display(), %error, "a credential for git was left and cannot be removed");
        }
    }
}

/// The protocol of a clone URL from the configuration.
pub(super) fn protocol_of(url: &str) -> Result<Protocol, SourceError> {
    let sound = !url.contains(|c: char| c.is_control() || c.is_whitespace() || c == '@');
    match url.split_once("://") {
        Some(("https", _)) if sound => Ok(Protocol::Https),
        Some(("http", _)) if sound => Ok(Protocol::Http),
        #[cfg(test)]
        Some(("file", _)) if sound => Ok(Protocol::File),
        _ => Err(SourceError::Address { url: url.to_owned() }),
    }
}

/// Runs a local command to its end, whatever its exit code.
pub(super) async fn run(path: &Path, cmd: Cmd) -> Result<Output, SourceError> {
    cmd.run().await.map_err(|source| failed(path, source))
}

/// As [`run`], where only exit code 0 will do.
pub(super) async fn run_ok(path: &Path, cmd: Cmd) -> Result<Output, SourceError> {
    run(path, cmd).await?.ok().map_err(|source| failed(path, source))
}

/// A command in this repository that failed.
pub(super) fn failed(path: &Path, source: ExecError) -> SourceError {
    SourceError::Git {
        path: PathBuf::from(path),
        source,
    }
}

/// How a watched command ended.
pub(super) enum Watched {
    /// By itself; with the end of what it said.
    Ended(ExitStatus, String),
    /// We ended it: the watch said so.
    Stopped,
    /// We ended it: it took too long.
    Late,
}

/// Runs a command that may take long and grow what it writes: `stop` is asked again and again, and
/// ends it, with everything it started. It reads `input`.
pub(super) async fn watched(
    path: &Path,
    cmd: Cmd,
    input: Vec<u8>,
    deadline: Duration,
    mut stop: impl FnMut() -> bool,
) -> Result<Watched, SourceError> {
    let lost = |source| SourceError::io("wait for git in", path, source);
    let mut child = cmd.stream().map_err(|source| failed(path, source))?;
    if let Some(mut stdin) = child.stdin.take() {
        // Beside the rest: a command that has ended reads no more, and says why itself.
        tokio::spawn(async move {
            let _unread = stdin.write_all(&input).await;
        });
    }
    let mut group = Group(child.id());
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let said = tokio::spawn(async move {
        let (_, said) = tokio::join!(tail(stdout), tail(stderr));
        said
    });
    let started = Instant::now();
    loop {
        tokio::select! {
            status = child.wait() => {
                let status = status.map_err(lost)?;
                group.0 = None;
                // What git started may hold the pipes a moment longer; its own words are here.
                let said = tokio::time::timeout(Duration::from_secs(5), said).await;
                return Ok(Watched::Ended(status, said.ok().and_then(Result::ok).unwrap_or_default()));
            }
            () = tokio::time::sleep(TICK) => {}
        }
        let late = started.elapsed() > deadline;
        if late || stop() {
            kill(&mut child).await;
            group.0 = None;
            return Ok(if late { Watched::Late } else { Watched::Stopped });
        }
    }
}

/// Ends a child and its whole process group, and waits for it.
pub(super) async fn kill(child: &mut Child) {
    drop(Group(child.id()));
    let _already_gone = child.kill().await;
}

/// The process group of a child that has not been waited for; dropping it ends them all, so that whoever
/// stops waiting for a fetch leaves none behind.
struct Group(Option<u32>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(pid) = self.0.and_then(|pid| i32::try_from(pid).ok()) {
            let group = nix::unistd::Pid::from_raw(pid);
            let _already_gone = nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL);
        }
    }
}

/// The last 2000 bytes of a pipe, read to its end, in one line.
pub(super) async fn tail(pipe: Option<impl AsyncReadExt + Unpin>) -> String {
    let Some(mut pipe) = pipe else { return String::new() };
    let mut kept = Vec::new();
    let mut buffer = vec![0; 8 * 1024];
    while let Ok(n @ 1..) = pipe.read(&mut buffer).await {
        kept.extend_from_slice(&buffer[..n]);
        let surplus = kept.len().saturating_sub(2000);
        kept.drain(..surplus);
    }
    tail_as_line(&kept, 2000)
}
