//! The console of a zone: zoneadmd's socket takes one reader, loses what nobody reads, and holds the guest up
//! while its reader is slow. So machined reads for ever, into files with a cap.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, WriteHalf},
    net::UnixStream,
    sync::Mutex,
    task::JoinHandle,
};

use crate::machine::console::{self, Writer};
use crate::model::names::MachineName;

/// What is kept of a console.
const CAP: u64 = 1 << 20;
/// zoneadmd has made its socket within this time.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A guest that takes nothing for so long does not read its console.
const GUEST_READS: Duration = Duration::from_secs(2);

/// A console that is read here. Dropping it does not end the reading.
#[derive(Debug)]
pub(in crate::machine::zone) struct Attached {
    task: JoinHandle<()>,
    input: Input,
}

/// The way to a guest's keyboard.
pub(in crate::machine::zone) type Input = std::sync::Arc<Mutex<WriteHalf<BufReader<UnixStream>>>>;

impl Attached {
    /// Whether the console is still read.
    pub(in crate::machine::zone) fn lives(&self) -> bool {
        !self.task.is_finished()
    }

    /// The handle for typing on this console.
    pub(in crate::machine::zone) fn input(&self) -> Input {
        Input::clone(&self.input)
    }

    /// Closes our end some time soon.
    pub(in crate::machine::zone) fn abort(&self) {
        self.task.abort();
    }

    /// Closes our end; when this returns, somebody else can have the console.
    pub(in crate::machine::zone) async fn close(self) {
        self.task.abort();
        // Cancelled, or ended by itself: both ways its half of the connection is closed.
        let _ended = self.task.await;
    }
}

/// Types on a console.
pub(in crate::machine::zone) async fn type_into(input: &Input, bytes: &[u8]) -> io::Result<()> {
    let typed = async {
        let mut input = input.lock().await;
        input.write_all(bytes).await?;
        input.flush().await
    };
    tokio::time::timeout(GUEST_READS, typed).await.unwrap_or_else(|_| {
        Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "the guest does not read its console; what was typed is lost",
        ))
    })
}

/// The socket on which zoneadmd serves the console.
fn socket(name: &MachineName) -> PathBuf {
    PathBuf::from(format!("/var/run/zones/{name}.console_sock"))
}

/// What stands where nobody read.
const GAP: &[u8] = b"\r\n[helios-ci: what the console said meanwhile was not read]\r\n";

/// Connects to a zone's console and records it until it ends; after what was recorded before, and a word of the gap.
pub(in crate::machine::zone) async fn record(name: &MachineName, dir: &Path) -> io::Result<Attached> {
    let (mut stream, input) = tokio::io::split(connect(&socket(name), CONNECT_TIMEOUT).await?);
    let mut writer = Writer::open(dir, CAP)?;
    if console::read(dir, 0)?.next > 0 {
        writer.write(GAP)?;
    }
    let task = tokio::spawn(async move {
        let mut buffer = vec![0; 16 << 10];
        // An end is zoneadmd's; an error of ours is seen in the console's silence.
        while let Ok(count @ 1..) = stream.read(&mut buffer).await {
            if let Err(error) = writer.write(buffer.get(..count).unwrap_or_default()) {
                tracing::warn!(%error, "a console is read on, and lost: it cannot be written");
            }
        }
    });
    Ok(Attached {
        task,
        input: Input::new(Mutex::new(input)),
    })
}

/// zlogin(1)'s handshake: who we are and that we stay when the zone halts, then `OK` or the process id of the
/// reader that was quicker.
async fn connect(socket: &Path, limit: Duration) -> io::Result<BufReader<UnixStream>> {
    let until = tokio::time::Instant::now() + limit;
    let stream = loop {
        match UnixStream::connect(socket).await {
            Ok(stream) => break stream,
            Err(error) if tokio::time::Instant::now() >= until => return Err(error),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    };
    let mut stream = BufReader::new(stream);
    stream.write_all(b"IDENT C 0\n").await?;
    let mut answer = String::new();
    let read = tokio::time::timeout(limit, (&mut stream).take(64).read_line(&mut answer)).await;
    read.map_err(|_| {
        io::Error::new(
            io::ErrorKind::TimedOut,
            "zoneadmd does not answer on the console's socket",
        )
    })??;
    match answer.trim() {
        "OK" => Ok(stream),
        other => Err(io::Error::new(
            io::ErrorKind::ResourceBusy,
            format!(
                "another process reads the console: {}",
                other.chars().take(20).collect::<String>()
            ),
        )),
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixListener;

    use super::*;

    async fn answered(answer: &'static [u8]) -> io::Result<Vec<u8>> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sock");
        let listener = UnixListener::bind(&path).unwrap();
        let zoneadmd = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut said = [0; 10];
            stream.read_exact(&mut said).await.unwrap();
            assert_eq!(&said, b"IDENT C 0\n");
            stream.write_all(answer).await.unwrap();
        });
        let stream = connect(&path, Duration::from_secs(20)).await;
        zoneadmd.await.unwrap();
        let mut rest = Vec::new();
        stream?.read_to_end(&mut rest).await?;
        Ok(rest)
    }

    #[tokio::test]
    async fn the_handshake_is_zlogins() {
        assert_eq!(answered(b"OK\nboot: ").await.unwrap(), b"boot: ");
        let error = answered(b"4711\n").await.unwrap_err();
        assert!(error.to_string().contains("4711"), "{error}");
    }
}
