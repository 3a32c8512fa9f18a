//! WriteFile through Get and ReadFile through Put.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures::Stream;
use helios_proto::v1::{GetRequest, PutChunk, ReadFile, WriteFile, agent_client::AgentClient};
use ring::digest;
use tokio::{
    fs::File,
    io::{AsyncReadExt, AsyncWriteExt},
    sync::watch,
    time::sleep,
};
use tonic::{Code, Status, transport::Channel};

use super::{FileError, absolute, walk::open_regular};

/// Bytes in one message.
const CHUNK: usize = 64 * 1024;

/// The largest message that is taken.
const MAX_MESSAGE: usize = 1 << 20;

/// A transfer that breaks with its connection is begun again so often.
const TRIES: u32 = 8;

/// Who this machine is, and its connection as long as there is one.
#[derive(Debug, Clone)]
pub struct Transfers {
    /// The attempt.
    pub attempt: String,
    /// The session key, which the join has bound.
    pub session_key: Bytes,
    /// The open connection.
    pub channel: watch::Receiver<Option<Channel>>,
}

/// Why one try ended.
enum Broken {
    /// A new one may work.
    Connection(Status),
    Final(FileError),
}

impl From<Status> for Broken {
    fn from(status: Status) -> Self {
        match status.code() {
            Code::Unavailable | Code::Unknown | Code::Internal | Code::Cancelled | Code::Aborted => {
                Self::Connection(status)
            }
            code => Self::Final(FileError::Transfer(format!("{code:?}: {}", status.message()))),
        }
    }
}

impl From<FileError> for Broken {
    fn from(error: FileError) -> Self {
        Self::Final(error)
    }
}

impl Transfers {
    /// Fetches a file from the node; it appears complete, with its mode, or not at all. Returns its
    /// size in bytes.
    pub async fn write(&self, command: WriteFile) -> Result<u64, FileError> {
        let path = absolute(command.path)?;
        if command.sha256.len() != 32 {
            return Err(FileError::Invalid("sha256 has not 32 bytes".to_owned()));
        }
        let (Some(parent), Some(_)) = (path.parent(), path.file_name()) else {
            return Err(FileError::Invalid(format!("`{}` names no file", path.display())));
        };
        fs::create_dir_all(parent).map_err(FileError::system("make the directory", parent))?;
        let mut tries = Tries::new(self);
        loop {
            let mut client = tries.next().await?;
            let partial = Partial::new(parent)?;
            match self
                .fetch(&mut client, &partial, &command.transfer, &command.sha256, &path)
                .await
            {
                Ok(size) => {
                    partial.publish(&path, command.mode)?;
                    return Ok(size);
                }
                Err(broken) => tries.broke(broken)?,
            }
        }
    }

    async fn fetch(
        &self,
        client: &mut AgentClient<Channel>,
        partial: &Partial,
        transfer: &str,
        expected: &[u8],
        path: &Path,
    ) -> Result<u64, Broken> {
        let request = GetRequest {
            attempt: self.attempt.clone(),
            session_key: self.session_key.to_vec(),
            transfer: transfer.to_owned(),
        };
        let mut chunks = client.get(request).await?.into_inner();
        let mut file = File::create_new(&partial.path)
            .await
            .map_err(FileError::system("make", &partial.path))?;
        let mut context = digest::Context::new(&digest::SHA256);
        let mut size = 0;
        while let Some(chunk) = chunks.message().await? {
            context.update(&chunk.data);
            size += chunk.data.len() as u64;
            file.write_all(&chunk.data)
                .await
                .map_err(FileError::system("write", path))?;
        }
        file.flush().await.map_err(FileError::system("write", path))?;
        file.sync_all().await.map_err(FileError::system("sync", path))?;
        let found = context.finish();
        if found.as_ref() != expected {
            let (found, expected) = (hex::encode(found), hex::encode(expected));
            return Err(FileError::Damaged {
                path: path.to_owned(),
                found,
                expected,
            }
            .into());
        }
        Ok(size)
    }

    /// Sends a regular file to the node. Returns its size in bytes.
    pub async fn read(&self, command: ReadFile) -> Result<u64, FileError> {
        let path = absolute(command.path)?;
        let mut tries = Tries::new(self);
        loop {
            let mut client = tries.next().await?;
            match self
                .send(&mut client, &path, &command.transfer, command.max_bytes)
                .await
            {
                Ok(size) => return Ok(size),
                Err(broken) => tries.broke(broken)?,
            }
        }
    }

    async fn send(
        &self,
        client: &mut AgentClient<Channel>,
        path: &Path,
        transfer: &str,
        max_bytes: u64,
    ) -> Result<u64, Broken> {
        let file = open_regular(path)?;
        let size = file.metadata().map_err(FileError::system("look at", path))?.len();
        if size > max_bytes {
            return Err(FileError::TooLarge {
                path: path.to_owned(),
                max: max_bytes,
            }
            .into());
        }
        let upload = Arc::new(Upload::new(path.to_owned(), max_bytes));
        let first = PutChunk {
            attempt: self.attempt.clone(),
            session_key: self.session_key.to_vec(),
            transfer: transfer.to_owned(),
            data: Bytes::new(),
        };
        let chunks = Arc::clone(&upload).chunks(File::from_std(file), first);
        // An error of the file must not look like its end: the call is dropped instead, which
        // resets the stream.
        let done = tokio::select! {
            done = client.put(chunks) => done?.into_inner(),
            error = upload.failed() => return Err(error.into()),
        };
        let (sent, sha256) = upload.sent();
        if done.bytes != sent || done.sha256 != sha256 {
            let (found, expected) = (hex::encode(done.sha256), hex::encode(sha256));
            return Err(FileError::Damaged {
                path: path.to_owned(),
                found,
                expected,
            }
            .into());
        }
        Ok(sent)
    }
}

/// The tries of one transfer, on connection after connection.
struct Tries {
    channel: watch::Receiver<Option<Channel>>,
    round: u32,
}

impl Tries {
    fn new(transfers: &Transfers) -> Self {
        Self {
            channel: transfers.channel.clone(),
            round: 0,
        }
    }

    /// Waits for a connection.
    async fn next(&mut self) -> Result<AgentClient<Channel>, FileError> {
        if self.round > 0 {
            // The session needs a moment to notice that its connection is gone.
            sleep(Duration::from_millis(100) * 2_u32.pow(self.round.min(5))).await;
        }
        self.round += 1;
        let channel = self
            .channel
            .wait_for(Option::is_some)
            .await
            .ok()
            .and_then(|found| found.clone());
        let channel = channel.ok_or_else(|| FileError::Transfer("the agent is ending".to_owned()))?;
        Ok(AgentClient::new(channel).max_decoding_message_size(MAX_MESSAGE))
    }

    /// Says whether the reason is worth another try.
    fn broke(&self, broken: Broken) -> Result<(), FileError> {
        match broken {
            Broken::Final(error) => Err(error),
            Broken::Connection(_) if self.round < TRIES => Ok(()),
            Broken::Connection(status) => Err(FileError::Transfer(format!(
                "it broke {TRIES} times, last with {:?}: {}",
                status.code(),
                status.message()
            ))),
        }
    }
}

/// A file that is not complete yet, beside the place where it will be; removed unless published.
struct Partial {
    path: PathBuf,
}

impl Partial {
    fn new(parent: &Path) -> Result<Self, FileError> {
        let name = crate::random::hex::<8>().map_err(FileError::system("name a file in", parent))?;
        Ok(Self {
            path: parent.join(format!(".helios-{name}")),
        })
    }

    fn publish(self, path: &Path, mode: u32) -> Result<(), FileError> {
        let mode = fs::Permissions::from_mode(mode & 0o7777);
        fs::set_permissions(&self.path, mode).map_err(FileError::system("set the mode of", path))?;
        fs::rename(&self.path, path).map_err(FileError::system("put in place", path))?;
        let parent = path.parent().unwrap_or(path);
        let synced = fs::File::open(parent).and_then(|directory| directory.sync_all());
        synced.map_err(FileError::system("sync", parent))
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // After publishing there is nothing under this name.
        let _ = fs::remove_file(&self.path);
    }
}

/// One file on its way out.
struct Upload {
    path: PathBuf,
    max_bytes: u64,
    progress: Mutex<Progress>,
    broken: tokio::sync::Notify,
}

struct Progress {
    bytes: u64,
    context: digest::Context,
    error: Option<FileError>,
}

impl Upload {
    fn new(path: PathBuf, max_bytes: u64) -> Self {
        let progress = Progress {
            bytes: 0,
            context: digest::Context::new(&digest::SHA256),
            error: None,
        };
        Self {
            path,
            max_bytes,
            progress: Mutex::new(progress),
            broken: tokio::sync::Notify::new(),
        }
    }

    /// The messages; after an error the stream neither goes on nor ends.
    fn chunks(self: Arc<Self>, file: File, first: PutChunk) -> impl Stream<Item = PutChunk> {
        futures::stream::unfold((self, file, Some(first)), |(upload, mut file, first)| async move {
            if let Some(first) = first {
                return Some((first, (upload, file, None)));
            }
            let mut data = vec![0; CHUNK];
            let outcome = match file.read(&mut data).await {
                Ok(read) => {
                    data.truncate(read);
                    upload.count(&data)
                }
                Err(error) => Err(FileError::system("read", &upload.path)(error)),
            };
            if let Err(error) = outcome {
                upload.lock().error = Some(error);
                upload.broken.notify_one();
                return std::future::pending().await;
            }
            let chunk = PutChunk {
                data: Bytes::from(data),
                ..PutChunk::default()
            };
            (!chunk.data.is_empty()).then_some((chunk, (upload, file, None)))
        })
    }

    fn count(&self, data: &[u8]) -> Result<(), FileError> {
        let mut progress = self.lock();
        progress.bytes += data.len() as u64;
        progress.context.update(data);
        if progress.bytes > self.max_bytes {
            return Err(FileError::TooLarge {
                path: self.path.clone(),
                max: self.max_bytes,
            });
        }
        Ok(())
    }

    async fn failed(&self) -> FileError {
        loop {
            self.broken.notified().await;
            if let Some(error) = self.lock().error.take() {
                return error;
            }
        }
    }

    fn sent(&self) -> (u64, Vec<u8>) {
        let progress = self.lock();
        (progress.bytes, progress.context.clone().finish().as_ref().to_vec())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
