//! A message on a stream, with a bound and a time limit; and the socket under it.

use std::io;
use std::os::unix::net::UnixStream;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, copy, split};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::fault::{Context, Fault, Result};
use crate::lines;

/// The longest message between hosts, in bytes.
pub const MOST_LINE: u64 = 4 << 20;
/// A longer one is heard when it has its turn.
pub const MOST_SHORT_LINE: u64 = 64 << 10;
/// How long a host may say nothing at all, to what the kernel asks of it, until its connections end.
const SILENT: Duration = Duration::from_secs(20);
/// How long one way of a connection may go on after the other one has broken.
const REST: Duration = Duration::from_secs(10);
/// How long a connection is quiet before the kernel asks.
const QUIET: Duration = Duration::from_secs(10);

/// Says a message.
///
/// # Errors
/// The other side is gone, or takes nothing for so long.
pub async fn say<S: AsyncWrite + Unpin>(to: &mut S, what: &impl Serialize, limit: Duration) -> Result<()> {
    let line = lines::line(what)?;
    let said = timeout(limit, async {
        to.write_all(&line).await?;
        to.flush().await
    });
    said.await.map_err(|_| late("takes nothing", limit))?.context("the other host is gone")
}

/// Hears a message of at most `most` bytes.
///
/// # Errors
/// There is none, it is longer, or it does not come in time.
pub async fn hear<S: AsyncRead + Unpin, T: DeserializeOwned>(
    from: &mut BufReader<S>,
    most: u64,
    limit: Duration,
) -> Result<T> {
    let mut line = Vec::new();
    let mut bounded = from.take(most);
    let read = timeout(limit, bounded.read_until(b'\n', &mut line));
    read.await.map_err(|_| late("says nothing", limit))?.context("the other host is gone")?;
    parse(&line, most)
}

/// Hears a message of at most `most` bytes. One that is long waits for its turn first, which lasts until what is returned is dropped.
///
/// # Errors
/// As those of [`hear`].
pub async fn hear_by_turns<S: AsyncRead + Unpin, T: DeserializeOwned>(
    from: &mut BufReader<S>,
    turns: &Arc<Semaphore>,
    most: u64,
    limit: Duration,
) -> Result<(T, Option<OwnedSemaphorePermit>)> {
    let (mut line, short) = (Vec::new(), most.min(MOST_SHORT_LINE));
    let read = async {
        let read = AsyncReadExt::take(&mut *from, short).read_until(b'\n', &mut line).await?;
        let is_long = read as u64 == short && short < most && !line.ends_with(b"\n");
        let turn = if is_long { Arc::clone(turns).acquire_owned().await.ok() } else { None };
        if is_long {
            AsyncReadExt::take(&mut *from, most.saturating_sub(short)).read_until(b'\n', &mut line).await?;
        }
        io::Result::Ok(turn)
    };
    let turn =
        timeout(limit, read).await.map_err(|_| late("says nothing", limit))?.context("the other host is gone")?;
    Ok((parse(&line, most)?, turn))
}

fn parse<T: DeserializeOwned>(line: &[u8], most: u64) -> Result<T> {
    if line.is_empty() {
        return Err(Fault::new("the other host ended the connection without an answer"));
    }
    lines::parse(line, most)
}

fn late(what: &str, limit: Duration) -> Fault {
    Fault::new(format!("the other host {what} for {} s", limit.as_secs()))
}

/// Carries bytes both ways until both sides have ended. If one way breaks, what is under way on the other still comes through: the reason, it may be.
pub async fn pass_on<S: AsyncRead + AsyncWrite>(stream: S, socket: UnixStream) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    let (mut from, mut to) = split(stream);
    let (mut here, mut there) = tokio::net::UnixStream::from_std(socket)?.into_split();
    let inward = async {
        let copied = copy(&mut from, &mut there).await;
        there.shutdown().await.and(copied)
    };
    let outward = async {
        let copied = copy(&mut here, &mut to).await;
        to.shutdown().await.and(copied)
    };
    let (mut inward, mut outward) = (pin!(inward), pin!(outward));
    tokio::select! {
        ended = &mut inward => rest(ended, outward).await,
        ended = &mut outward => rest(ended, inward).await,
    }
}

/// The other way, after one has ended.
async fn rest(ended: io::Result<u64>, other: impl Future<Output = io::Result<u64>>) -> io::Result<()> {
    if ended.is_ok() { other.await.map(drop) } else { timeout(REST, other).await?.map(drop) }
}

/// Has the kernel end a connection to a host that is gone without a word.
pub fn watched(stream: &TcpStream) {
    use rustix::net::sockopt;
    // One that cannot be set is not worth a connection.
    let _ = stream.set_nodelay(true);
    let _ = sockopt::set_socket_keepalive(stream, true);
    let _ = sockopt::set_tcp_keepidle(stream, QUIET);
    let _ = sockopt::set_tcp_keepintvl(stream, Duration::from_secs(5));
    let _ = sockopt::set_tcp_keepcnt(stream, 2);
    let _ = sockopt::set_tcp_user_timeout(stream, u32::try_from(SILENT.as_millis()).unwrap_or(u32::MAX));
}
