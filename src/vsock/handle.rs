//! What the host program may do with a guest's vsock.

use std::collections::{HashMap, VecDeque};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind, Result};
use crate::event::Waker;
use crate::sys::{EventFd, check_may_wait, lock, non_blocking_pair};

/// So many connections may wait for the device to look at them.
const MOST_REQUESTS: usize = 1024;
/// So many connections of the guest may wait to be accepted.
const MOST_WAITING: usize = 128;

/// Connects to ports of a guest and listens on ports of the host. Any thread may use it, and a clone is the same vsock.
///
/// The streams are Unix sockets: what becomes ready can be waited for by poll(2), epoll(7) or an asynchronous runtime. The guest's half
/// close is the end of the stream, and [`shutdown`](UnixStream::shutdown) is ours. If the guest resets a connection, if its driver is reset
/// or the VM ends, the stream is closed: what the guest sent before can still be read, and writing fails.
///
/// ```no_run
/// use std::io::{Read, Write};
/// use std::time::Duration;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let vm = vmcell::Vm::builder().build()?;
/// let vsock = vm.vsock()?;
/// let mut shell = vsock.connect_timeout(52, Duration::from_secs(5))?; // the guest listens on port 52
/// shell.write_all(b"uname -r\n")?;
///
/// let listener = vsock.listen(1024)?;
/// let (mut logs, port) = listener.accept()?; // the guest connects to port 1024 of CID 2
/// let mut text = String::new();
/// logs.read_to_string(&mut text)?;
/// println!("from the guest's port {port}: {text}");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct VsockHandle {
    shared: Arc<Shared>,
}

/// Between the host program and the device.
#[derive(Debug)]
pub(super) struct Shared {
    inner: Mutex<Inner>,
    waker: OnceLock<Waker>,
}

#[derive(Debug, Default)]
struct Inner {
    requests: VecDeque<Request>,
    listeners: HashMap<u32, Arc<Backlog>>,
    ended: bool,
}

/// A connection that the host program asks for.
#[derive(Debug)]
pub(super) struct Request {
    /// The guest's.
    pub(super) port: u32,
    pub(super) stream: UnixStream,
    pub(super) answer: Option<Answer>,
}

/// Where the host program waits for the guest's answer. Nothing is sent if the connection is dropped before.
pub(super) type Answer = SyncSender<Result<()>>;

/// Connections of the guest that wait to be accepted.
#[derive(Debug)]
struct Backlog {
    waiting: Mutex<Waiting>,
    came: Condvar,
    /// Signalled while there is something to accept, or nothing ever again.
    event: EventFd,
}

#[derive(Debug, Default)]
struct Waiting {
    streams: VecDeque<(UnixStream, u32)>,
    closed: bool,
}

impl VsockHandle {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Connects to a port of the guest. Does not wait for the guest: what is written before it has accepted waits in the stream. If it
    /// refuses, the stream is closed. While the guest has no driver for the vsock yet, the connection waits for that.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidState`] if the VM has ended; [`ErrorKind::Vsock`] if 1,024 connections wait for the guest's driver already;
    /// [`ErrorKind::Host`] if the process may open no more descriptors.
    pub fn connect(&self, port: u32) -> Result<UnixStream> {
        self.begin(port, None)
    }

    /// Connects to a port of the guest, and waits until it has accepted, at most for `limit`.
    ///
    /// # Errors
    /// Those of [`connect`](Self::connect); [`ErrorKind::Vsock`] if the guest refuses, since no program listens there for instance;
    /// [`ErrorKind::Timeout`] if there is no answer within the limit; [`ErrorKind::InvalidState`] in a
    /// [callback](crate::event#what-a-callback-may-do).
    pub fn connect_timeout(&self, port: u32, limit: Duration) -> Result<UnixStream> {
        check_may_wait("wait for a guest's answer")?;
        let (answer, answered) = sync_channel(1);
        let stream = self.begin(port, Some(answer))?;
        let ended = || Error::new(ErrorKind::Vsock, format!("the connection to port {port} of the guest was reset"));
        match answered.recv_timeout(limit) {
            Ok(Ok(())) => Ok(stream),
            Ok(Err(refused)) => Err(refused),
            Err(RecvTimeoutError::Disconnected) => Err(ended()),
            Err(RecvTimeoutError::Timeout) => {
                let millis = limit.as_millis();
                let message = format!("the guest did not accept a connection to port {port} within {millis} ms");
                Err(Error::new(ErrorKind::Timeout, message))
            }
        }
    }

    /// Listens on a port of the host: what the guest connects to it is [accepted](VsockListener::accept) here, and not by a Unix socket of
    /// another program. Up to 128 connections wait to be accepted, and others are refused. The guest sees them as connected already.
    ///
    /// # Errors
    /// [`ErrorKind::Vsock`] if there is a listener for that port; [`ErrorKind::InvalidState`] if the VM has ended; [`ErrorKind::Host`] if
    /// the process may open no more descriptors.
    pub fn listen(&self, port: u32) -> Result<VsockListener> {
        let backlog =
            Arc::new(Backlog { waiting: Mutex::new(Waiting::default()), came: Condvar::new(), event: EventFd::new()? });
        let mut inner = lock(&self.shared.inner);
        inner.check()?;
        if inner.listeners.contains_key(&port) {
            return Err(Error::new(
                ErrorKind::Vsock,
                format!("there is a listener for port {port} of the host already"),
            ));
        }
        inner.listeners.insert(port, Arc::clone(&backlog));
        Ok(VsockListener { shared: Arc::clone(&self.shared), port, backlog })
    }

    fn begin(&self, port: u32, answer: Option<Answer>) -> Result<UnixStream> {
        let host = |e| Error::new(ErrorKind::Host, "cannot make a pair of Unix sockets").with_source(e);
        let (ours, theirs) = non_blocking_pair().map_err(host)?;
        theirs.set_nonblocking(false).map_err(host)?;
        let mut inner = lock(&self.shared.inner);
        inner.check()?;
        if inner.requests.len() >= MOST_REQUESTS {
            let message = format!("{MOST_REQUESTS} connections wait for the guest's driver already, no more may");
            return Err(Error::new(ErrorKind::Vsock, message));
        }
        inner.requests.push_back(Request { port, stream: ours, answer });
        drop(inner);
        self.shared.wake();
        Ok(theirs)
    }
}

/// A port of the host that a guest connects to. Dropping it frees the port; connections that were not accepted are closed.
///
/// Its descriptor ([`AsFd`]) is readable while there is a connection to accept, and once the VM has ended. Do not read it.
#[derive(Debug)]
pub struct VsockListener {
    shared: Arc<Shared>,
    port: u32,
    backlog: Arc<Backlog>,
}

impl VsockListener {
    /// Waits for a connection, and returns its stream, which blocks, and the guest's port.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidState`] if the VM has ended and no connection is left, and in a
    /// [callback](crate::event#what-a-callback-may-do); [`ErrorKind::Host`] if the host cannot have the stream block.
    pub fn accept(&self) -> Result<(UnixStream, u32)> {
        check_may_wait("wait for a guest's connection")?;
        self.accept_until(None)
    }

    /// Waits for a connection at most for `limit`; with zero it never blocks.
    ///
    /// # Errors
    /// Those of [`accept`](Self::accept), and [`ErrorKind::Timeout`] if none came. With a limit of zero, a callback may do this.
    pub fn accept_timeout(&self, limit: Duration) -> Result<(UnixStream, u32)> {
        if !limit.is_zero() {
            check_may_wait("wait for a guest's connection")?;
        }
        self.accept_until(Some(limit))
    }

    /// Returns the port that it listens on.
    pub fn port(&self) -> u32 {
        self.port
    }

    fn accept_until(&self, limit: Option<Duration>) -> Result<(UnixStream, u32)> {
        let begun = Instant::now();
        let mut waiting = lock(&self.backlog.waiting);
        loop {
            if let Some((stream, port)) = waiting.streams.pop_front() {
                if waiting.streams.is_empty() && !waiting.closed {
                    self.backlog.event.take();
                }
                let host = |e| Error::new(ErrorKind::Host, "cannot have a stream block").with_source(e);
                return stream.set_nonblocking(false).map(|()| (stream, port)).map_err(host);
            }
            if waiting.closed {
                return Err(ended());
            }
            let left = limit.map(|limit| limit.saturating_sub(begun.elapsed()));
            if left.is_some_and(|left| left.is_zero()) {
                let (port, millis) = (self.port, limit.unwrap_or_default().as_millis());
                let message = format!("the guest did not connect to port {port} of the host within {millis} ms");
                return Err(Error::new(ErrorKind::Timeout, message));
            }
            let came = &self.backlog.came;
            waiting = match left {
                Some(left) => came.wait_timeout(waiting, left).unwrap_or_else(PoisonError::into_inner).0,
                None => came.wait(waiting).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }
}

impl AsFd for VsockListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.backlog.event.as_fd()
    }
}

impl Drop for VsockListener {
    fn drop(&mut self) {
        lock(&self.shared.inner).listeners.remove(&self.port);
    }
}

impl Shared {
    pub(super) fn new() -> Self {
        Self { inner: Mutex::new(Inner::default()), waker: OnceLock::new() }
    }

    pub(super) fn set_waker(&self, waker: Waker) {
        let _ = self.waker.set(waker);
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.get() {
            waker.wake();
        }
    }

    /// Takes the oldest of what the host program has asked for.
    pub(super) fn take_request(&self) -> Option<Request> {
        lock(&self.inner).requests.pop_front()
    }

    /// Whether the host program listens on a port.
    pub(super) fn listens(&self, port: u32) -> bool {
        lock(&self.inner).listeners.contains_key(&port)
    }

    /// Has a connection accepted by the host program that listens on `port`; says whether it has room for one.
    pub(super) fn deliver(&self, port: u32, guest_port: u32, stream: UnixStream) -> bool {
        let Some(backlog) = lock(&self.inner).listeners.get(&port).cloned() else { return false };
        let mut waiting = lock(&backlog.waiting);
        if waiting.closed || waiting.streams.len() >= MOST_WAITING {
            return false;
        }
        waiting.streams.push_back((stream, guest_port));
        backlog.event.signal();
        drop(waiting);
        backlog.came.notify_one();
        true
    }

    /// From now on nothing can be connected.
    pub(super) fn end(&self) {
        let (requests, listeners) = {
            let mut inner = lock(&self.inner);
            inner.ended = true;
            (std::mem::take(&mut inner.requests), std::mem::take(&mut inner.listeners))
        };
        for request in requests {
            request.answer.map(|answer| answer.try_send(Err(ended())));
        }
        for backlog in listeners.into_values() {
            lock(&backlog.waiting).closed = true;
            backlog.event.signal();
            backlog.came.notify_all();
        }
    }
}

impl Inner {
    fn check(&self) -> Result<()> {
        if self.ended { Err(ended()) } else { Ok(()) }
    }
}

fn ended() -> Error {
    Error::new(ErrorKind::InvalidState, "the VM has ended, and no connection leads to it any more")
}
