//! A connection whose last answer arrives even when its client was still sending.
//!
//! Closing a socket with unread bytes makes the kernel send a reset, and a reset throws away what the client has not
//! read yet (RFC 9112, section 9.6). A forge whose too large delivery was refused with 413 would see "connection reset"
//! and never the reason. So the sending half is closed first, and what still comes is read and thrown away, within limits.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep},
};

/// How long a client may go on sending after its answer.
const LINGER_WITHIN: Duration = Duration::from_secs(5);
/// Bytes that are read for it: more than the largest delivery of any forge (GitHub: 25 MB).
const LINGER_BYTES: usize = 64 << 20;

/// A stream whose shutdown waits for the other side to have sent all, at most `LINGER_WITHIN` and `LINGER_BYTES`.
pub struct Lingering<S> {
    stream: S,
    draining: Option<Drain>,
}

struct Drain {
    until: Pin<Box<Sleep>>,
    left: usize,
}

impl<S> Lingering<S> {
    /// Reads and writes as the stream does.
    pub const fn new(stream: S) -> Self {
        Self { stream, draining: None }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Lingering<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Lingering<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.draining.is_none() {
            ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
        }
        let drain = this.draining.get_or_insert_with(|| Drain {
            until: Box::pin(tokio::time::sleep_until(Instant::now() + LINGER_WITHIN)),
            left: LINGER_BYTES,
        });
        let mut space = [0; 16 * 1024];
        while drain.left > 0 {
            if drain.until.as_mut().poll(cx).is_ready() {
                break;
            }
            let mut buf = ReadBuf::new(&mut space);
            match ready!(Pin::new(&mut this.stream).poll_read(cx, &mut buf)) {
                Ok(()) if !buf.filled().is_empty() => drain.left = drain.left.saturating_sub(buf.filled().len()),
                // The other side has ended, in good order or not: there is nobody left to hear the answer.
                Ok(()) | Err(_) => break,
            }
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn shutdown_reads_what_still_comes_and_the_answer_is_there() {
        let (mut client, server) = duplex(1024);
        let mut server = Lingering::new(server);
        server.write_all(b"no").await.unwrap();
        let served = tokio::spawn(async move { server.shutdown().await });
        client.write_all(&vec![b' '; 1 << 20]).await.unwrap();
        client.shutdown().await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "no");
        served.await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_holds_a_connection_by_sending_or_by_silence() {
        let begun = Instant::now();
        let (_silent, server) = duplex(1024);
        Lingering::new(server).shutdown().await.unwrap();
        assert_eq!(begun.elapsed().as_secs(), LINGER_WITHIN.as_secs());

        let (mut client, server) = duplex(1 << 20);
        let sent = tokio::spawn(async move {
            let block = vec![b' '; 1 << 20];
            let mut sent = 0_usize;
            while client.write_all(&block).await.is_ok() {
                sent += block.len();
            }
            sent
        });
        Lingering::new(server).shutdown().await.unwrap();
        let sent = sent.await.unwrap();
        assert!((LINGER_BYTES..LINGER_BYTES + (3 << 20)).contains(&sent), "{sent}");
    }
}
