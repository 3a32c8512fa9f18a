//! A few words of QMP, QEMU's monitor protocol: one JSON object per line. QEMU may have been taken
//! over by its guest, so its answers are bounded in size and time and never trusted for more than
//! what they are asked.

use std::{io, path::Path, time::Duration};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::UnixStream,
};

/// The longest line that is read.
const LINE: u64 = 64 * 1024;
/// The most lines between a command and its answer: events come at any time.
const LINES: usize = 200;

/// A session with a guest's monitor.
#[derive(Debug)]
pub(super) struct Qmp {
    stream: BufReader<UnixStream>,
}

impl Qmp {
    /// Connects and leaves the negotiation mode.
    ///
    /// # Errors
    /// When nobody listens, or what listens does not speak QMP within the deadline.
    pub(super) async fn connect(socket: &Path, deadline: Duration) -> io::Result<Self> {
        within(deadline, async {
            let mut qmp = Self {
                stream: BufReader::new(UnixStream::connect(socket).await?),
            };
            let greeting = qmp.line().await?;
            if greeting.get("QMP").is_none() {
                return Err(io::Error::other("the monitor's greeting is not QMP's"));
            }
            qmp.ask("qmp_capabilities").await?;
            Ok(qmp)
        })
        .await
    }

    /// Runs a command without arguments.
    ///
    /// # Errors
    /// When QEMU refuses it, or does not answer within the deadline.
    pub(super) async fn run(&mut self, command: &str, deadline: Duration) -> io::Result<Value> {
        within(deadline, self.ask(command)).await
    }

    async fn ask(&mut self, command: &str) -> io::Result<Value> {
        let text = format!("{}\n", json!({ "execute": command, "id": command }));
        self.stream.get_mut().write_all(text.as_bytes()).await?;
        for _ in 0..LINES {
            let mut answer = self.line().await?;
            if answer.get("id").and_then(Value::as_str) != Some(command) {
                continue;
            }
            if let Some(value) = answer.get_mut("return") {
                return Ok(value.take());
            }
            let why = answer
                .pointer("/error/desc")
                .and_then(Value::as_str)
                .unwrap_or("no reason");
            return Err(io::Error::other(format!("QEMU refused {command}: {why}")));
        }
        Err(io::Error::other(format!(
            "QEMU did not answer {command} but sent {LINES} other lines"
        )))
    }

    async fn line(&mut self) -> io::Result<Value> {
        let mut line = Vec::new();
        let read = (&mut self.stream).take(LINE).read_until(b'\n', &mut line).await?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if line.last() != Some(&b'\n') {
            return Err(io::Error::other("a line of the monitor is too long or cut short"));
        }
        Ok(serde_json::from_slice(&line)?)
    }
}

async fn within<T>(deadline: Duration, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(deadline, work).await.unwrap_or_else(|_| {
        Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "QEMU's monitor does not answer",
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deadline;

    const SHORT: Duration = Duration::from_millis(200);

    /// A monitor that says `greeting`, then answers the n-th line it reads with the n-th text.
    async fn monitor(greeting: &'static [u8], answers: Vec<Vec<u8>>) -> (tempfile::TempDir, std::path::PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("q");
        let listener = tokio::net::UnixListener::bind(&socket).unwrap();
        tokio::spawn(async move {
            let mut stream = BufReader::new(listener.accept().await.unwrap().0);
            stream.get_mut().write_all(greeting).await.unwrap();
            let mut line = String::new();
            for answer in answers {
                if stream.read_line(&mut line).await.unwrap_or(0) == 0
                    || stream.get_mut().write_all(&answer).await.is_err()
                {
                    return;
                }
            }
            std::future::pending::<()>().await;
        });
        (dir, socket)
    }

    const HELLO: &[u8] = b"{\"QMP\": {}}\n";

    #[tokio::test]
    async fn answers_are_found_among_events() {
        let ready = b"{\"return\": {}, \"id\": \"qmp_capabilities\"}\n".to_vec();
        let name = b"{\"event\": \"RESUME\"}\n{\"return\": {\"name\": \"x\"}, \"id\": \"query-name\"}\n".to_vec();
        let no = b"{\"error\": {\"desc\": \"no way\"}, \"id\": \"quit\"}\n".to_vec();
        let (_dir, socket) = monitor(HELLO, vec![ready, name, no]).await;
        let mut qmp = Qmp::connect(&socket, deadline::PROMPT).await.unwrap();
        assert_eq!(qmp.run("query-name", deadline::PROMPT).await.unwrap()["name"], "x");
        let error = qmp.run("quit", deadline::PROMPT).await.unwrap_err().to_string();
        assert!(error.contains("no way"), "{error}");
        assert_eq!(
            qmp.run("stop", SHORT).await.unwrap_err().kind(),
            io::ErrorKind::TimedOut
        );
    }

    #[tokio::test]
    async fn hostile_monitors_are_refused() {
        for greeting in [b"{}\n".as_slice(), b"hello\n", b"\xff\xff\n", b"[]\n"] {
            let (_dir, socket) = monitor(greeting, vec![]).await;
            Qmp::connect(&socket, SHORT).await.unwrap_err();
        }
        let (_dir, socket) = monitor(HELLO, vec![vec![b'x'; 100_000]]).await;
        assert!(
            Qmp::connect(&socket, deadline::PROMPT)
                .await
                .unwrap_err()
                .to_string()
                .contains("too long")
        );
        let (_dir, socket) = monitor(HELLO, vec![b"{\"event\": 1}\n".repeat(300)]).await;
        assert!(
            Qmp::connect(&socket, deadline::PROMPT)
                .await
                .unwrap_err()
                .to_string()
                .contains("other lines")
        );
        Qmp::connect(Path::new("/nonexistent"), deadline::PROMPT)
            .await
            .unwrap_err();
    }
}
