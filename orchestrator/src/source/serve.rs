//! Serving a grant to its machine: git's daemon protocol on a connection that already says which
//! attempt it belongs to, because its socket lies in that attempt's own folder. The machine is not
//! trusted: its request is bounded in size and time, and can name nothing but the one repository.

use std::{sync::PoisonError, time::Duration};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};

use super::{
    CONNECTIONS, Source, SourceError,
    git::{Protocol, git, kill, tail},
};
use crate::model::ids::AttemptId;

/// The longest request: git's own is far below a kilobyte.
const MAX_REQUEST: usize = 1024;
/// How long a machine may take to say what it wants.
const REQUEST_DEADLINE: Duration = Duration::from_secs(30);
/// How long git waits for a machine that says nothing, in seconds.
const IDLE_S: u32 = 300;
/// The longest transfer.
const SERVE_DEADLINE: Duration = Duration::from_secs(3600);
/// One buffer of each direction: large, because every read crosses the machine's own network.
const BUFFER: usize = 128 << 10;

/// Counts one connection of an attempt while it lives.
struct Connection<'s> {
    source: &'s Source,
    attempt: AttemptId,
}

impl Drop for Connection<'_> {
    fn drop(&mut self) {
        let mut open = self.source.0.connections.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.attempt) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.attempt);
            }
        }
    }
}

impl Source {
    /// Answers one connection of an attempt's machine until it ends. Only `git-upload-pack` of
    /// `/repo` is answered, from the attempt's grant.
    ///
    /// # Errors
    /// When the machine asked for anything else (it was told), or the connection broke.
    pub async fn serve<S>(&self, stream: S, attempt: AttemptId) -> Result<(), SourceError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let lost = |source| SourceError::Connection { attempt, source };
        let mut stream = stream;
        let request = match self.admit(&mut stream, attempt).await {
            Ok(request) => request,
            Err(SourceError::Request { reason, .. }) => {
                // A machine that does not listen to the answer is refused all the same.
                let _unheard = stream.write_all(&error_packet(&reason)).await;
                let _unheard = stream.shutdown().await;
                return Err(SourceError::Request { attempt, reason });
            }
            Err(error) => return Err(error),
        };
        let (_connection, version) = request;
        let path = self.grant_path(attempt);
        let mut cmd = git(&path, Protocol::None, "upload-pack");
        cmd = cmd
            .args(["--strict", &format!("--timeout={IDLE_S}"), "--end-of-options"])
            .arg(&path);
        if let Some(version) = version {
            cmd = cmd.env("GIT_PROTOCOL", version);
        }
        let mut child = cmd.stream().map_err(|source| SourceError::Git {
            path: path.clone(),
            source,
        })?;
        let (Some(mut stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            kill(&mut child).await;
            return Err(lost(std::io::Error::other("git has no pipes")));
        };
        let stderr = tokio::spawn(tail(child.stderr.take()));
        let (from, mut to) = tokio::io::split(stream);
        let mut from = BufReader::with_capacity(BUFFER, from);
        let mut stdout = BufReader::with_capacity(BUFFER, stdout);
        let asks = async {
            let copied = tokio::io::copy_buf(&mut from, &mut stdin).await;
            // The end of the machine's words is the end of git's input.
            drop(stdin);
            copied
        };
        let answers = async {
            let copied = tokio::io::copy_buf(&mut stdout, &mut to).await;
            let _gone = to.shutdown().await;
            copied
        };
        // The connection is over when git has said everything; what the machine still says is lost.
        let transfer = async {
            tokio::pin!(asks, answers);
            tokio::select! {
                copied = &mut answers => copied,
                asked = &mut asks => match asked {
                    // A closed pipe means that git has heard enough; its answer still counts.
                    Ok(_) => answers.await,
                    Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => answers.await,
                    Err(error) => Err(error),
                },
            }
        };
        let copied = tokio::time::timeout(SERVE_DEADLINE, transfer).await;
        kill(&mut child).await;
        let said = stderr.await.unwrap_or_default();
        if !said.is_empty() {
            tracing::debug!(%attempt, said, "git upload-pack");
        }
        match copied {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(source)) => Err(lost(source)),
            Err(_) => Err(lost(std::io::ErrorKind::TimedOut.into())),
        }
    }

    async fn admit<S>(
        &self,
        stream: &mut S,
        attempt: AttemptId,
    ) -> Result<(Connection<'_>, Option<&'static str>), SourceError>
    where
        S: AsyncRead + Unpin,
    {
        let refused = |reason: &str| SourceError::Request {
            attempt,
            reason: reason.into(),
        };
        let connection = self
            .connect(attempt)
            .ok_or_else(|| refused("too many connections at once"))?;
        let packet = tokio::time::timeout(REQUEST_DEADLINE, read_packet(stream))
            .await
            .map_err(|_| refused("no request came"))?
            .map_err(|reason| refused(&reason))?;
        let version = parse_request(&packet).map_err(refused)?;
        if !self.grant_path(attempt).join("HEAD").exists() {
            return Err(refused("no source is granted"));
        }
        Ok((connection, version))
    }

    fn connect(&self, attempt: AttemptId) -> Option<Connection<'_>> {
        let mut open = self.0.connections.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(attempt).or_default();
        if *count >= CONNECTIONS {
            return None;
        }
        *count += 1;
        Some(Connection { source: self, attempt })
    }
}

async fn read_packet(stream: &mut (impl AsyncRead + Unpin)) -> Result<Vec<u8>, String> {
    let broken = |error: std::io::Error| format!("the request did not come whole: {error}");
    let mut length = [0; 4];
    stream.read_exact(&mut length).await.map_err(broken)?;
    let length = std::str::from_utf8(&length)
        .ok()
        .filter(|text| text.bytes().all(|b| b.is_ascii_hexdigit()))
        .and_then(|text| usize::from_str_radix(text, 16).ok())
        .filter(|length| (5..=MAX_REQUEST).contains(length))
        .ok_or("the request is not one of git's")?;
    let mut packet = vec![0; length - 4];
    stream.read_exact(&mut packet).await.map_err(broken)?;
    Ok(packet)
}

/// `git-upload-pack /repo\0host=…\0\0version=2\0` → the protocol version asked for.
fn parse_request(packet: &[u8]) -> Result<Option<&'static str>, &'static str> {
    let mut parts = packet.split(|byte| *byte == 0);
    let command = parts.next().unwrap_or_default();
    let command = command.strip_suffix(b"\n").unwrap_or(command);
    let Some(path) = command.strip_prefix(b"git-upload-pack ") else {
        return Err("only fetching is possible here");
    };
    if path != b"/repo" && path != b"/repo.git" {
        return Err("there is only one repository here: /repo");
    }
    // The host comes first and does not matter; what follows an empty part are extra parameters.
    // A version we do not know is ignored, as git's own daemon does it.
    let version = parts.skip_while(|part| !part.is_empty()).find_map(|part| match part {
        b"version=0" => Some("version=0"),
        b"version=1" => Some("version=1"),
        b"version=2" => Some("version=2"),
        _ => None,
    });
    Ok(version)
}

fn error_packet(reason: &str) -> Vec<u8> {
    let text = format!("ERR {reason}\n");
    format!("{:04x}{text}", text.len() + 4).into_bytes()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn requests_name_the_one_repository_or_are_refused() {
        for (packet, expected) in [
            (&b"git-upload-pack /repo\0host=ci\0"[..], Ok(None)),
            (
                b"git-upload-pack /repo.git\0host=ci:9418\0\0version=2\0",
                Ok(Some("version=2")),
            ),
            (b"git-upload-pack /repo\n", Ok(None)),
            (b"git-upload-pack /repo\0host=x\0\0version=7\0", Ok(None)),
            (b"git-upload-pack /repo\0version=2\0", Ok(None)),
        ] {
            assert_eq!(parse_request(packet), expected, "{:?}", String::from_utf8_lossy(packet));
        }
        for packet in [
            &b"git-receive-pack /repo\0host=ci\0"[..],
            b"git-upload-archive /repo\0",
            b"git-upload-pack /repo/../../mirrors/x",
            b"git-upload-pack repo",
            b"git-upload-pack  /repo",
            b"git-upload-pack --help",
            b"",
            b"\0\0",
        ] {
            assert!(parse_request(packet).is_err(), "{:?}", String::from_utf8_lossy(packet));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_request_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _answer = parse_request(&bytes);
        }
    }
}
