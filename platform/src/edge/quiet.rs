//! A connection that ends when nothing has moved on it for too long.

use std::any::Any;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

/// Reads and writes fail once no byte has moved for `limit`.
pub struct Quiet<T> {
    inner: T,
    limit: Duration,
    end: Pin<Box<Sleep>>,
    /// Dropped with the connection.
    _kept: Option<Box<dyn Any + Send>>,
}

impl<T> Quiet<T> {
    /// Begins now.
    pub fn new(inner: T, limit: Duration) -> Self {
        Self { inner, limit, end: Box::pin(sleep(limit)), _kept: None }
    }

    /// Keeps something for as long as the connection lasts.
    pub fn keeping(self, kept: Box<dyn Any + Send>) -> Self {
        Self { _kept: Some(kept), ..self }
    }

    /// What came of a read or a write: a byte that moved sets the clock back, and one that does not come waits for its end.
    fn seen<R>(&mut self, cx: &mut Context<'_>, came: Poll<io::Result<R>>) -> Poll<io::Result<R>> {
        if came.is_ready() {
            let end = Instant::now().checked_add(self.limit);
            if let Some(end) = end {
                self.end.as_mut().reset(end);
            }
            return came;
        }
        if self.end.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Poll::Pending
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Quiet<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let came = Pin::new(&mut self.inner).poll_read(cx, buf);
        self.seen(cx, came)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Quiet<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let came = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.seen(cx, came)
    }

    // Without these two, what TLS has in several records would be as many writes.
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let came = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.seen(cx, came)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let came = Pin::new(&mut self.inner).poll_flush(cx);
        // Nothing to flush is no sign of life.
        if let Poll::Ready(done) = came { Poll::Ready(done) } else { self.seen(cx, came) }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let came = Pin::new(&mut self.inner).poll_shutdown(cx);
        self.seen(cx, came)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[test]
    fn a_connection_on_which_nothing_moves_ends_and_one_that_goes_on_does_not() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let (mut other, inner) = tokio::io::duplex(64);
            let mut quiet = Quiet::new(inner, Duration::from_millis(200));
            for _ in 0..4 {
                sleep(Duration::from_millis(80)).await;
                other.write_all(b"x").await.unwrap();
                assert_eq!(quiet.read_u8().await.unwrap(), b'x');
            }
            assert_eq!(quiet.read_u8().await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        });
    }
}
