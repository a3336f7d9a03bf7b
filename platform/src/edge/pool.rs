//! Connections to backends that wait for another request, so that not each request makes one.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http_body_util::combinators::BoxBody;
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::client::conn::http1::SendRequest;
use tokio::time::{Instant, sleep, timeout};

use super::routes::{Again, Kept};
use super::upload::Upload;

/// So many connections wait for one name, and for all names, at each of the threads.
const MOST: (usize, usize) = (64, 512);
/// How long one waits. Backends close theirs after some seconds, and a VM without requests is to sleep.
const WAIT: Duration = Duration::from_secs(1);
/// So many requests go by one connection, so that VMs that are new get their part.
const MOST_REQUESTS: u32 = 256;
/// How long a connection may take to be ready after its answer has ended.
const READY: Duration = Duration::from_secs(1);

/// The body of a request to a backend.
pub type Sent = Upload<BoxBody<Bytes, hyper::Error>>;

/// Connections that wait, by the names that they are for.
#[derive(Default)]
pub struct Pool {
    waiting: Mutex<HashMap<String, VecDeque<Waiting>>>,
}

struct Waiting {
    way: Way,
    since: Instant,
}

/// A connection to a backend.
struct Way {
    sender: SendRequest<Sent>,
    again: Option<Again>,
    requests: u32,
}

/// A connection that one request has. It waits for another one once the answer has ended, and is closed if it is dropped before.
pub struct Lease {
    pool: Arc<Pool>,
    host: String,
    way: Way,
    /// What counts the request as one.
    kept: Kept,
}

impl Pool {
    fn waiting(&self) -> MutexGuard<'_, HashMap<String, VecDeque<Waiting>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection that has waited, if its backend takes another request by it. The one that has waited longest, so that backends take turns.
    pub fn take(self: &Arc<Self>, host: &str) -> Option<Lease> {
        loop {
            let Waiting { mut way, since } = self.waiting().get_mut(host)?.pop_front()?;
            if since.elapsed() > WAIT || !way.sender.is_ready() {
                continue;
            }
            // Asked without the lock: it takes others.
            let Some(kept) = way.again.as_ref().and_then(|again| again()) else { continue };
            way.requests = way.requests.saturating_add(1);
            return Some(Lease { pool: Arc::clone(self), host: host.to_owned(), way, kept });
        }
    }

    /// A new connection, whose first request this is.
    pub fn lease(self: &Arc<Self>, host: &str, sender: SendRequest<Sent>, kept: Kept, again: Option<Again>) -> Lease {
        let way = Way { sender, again, requests: 1 };
        Lease { pool: Arc::clone(self), host: host.to_owned(), way, kept }
    }

    fn put(&self, host: String, way: Way) {
        let mut waiting = self.waiting();
        let all = waiting.values().fold(0, |all: usize, of_one| all.saturating_add(of_one.len()));
        let of_one = waiting.entry(host).or_default();
        if of_one.len() < MOST.0 && all < MOST.1 {
            of_one.push_back(Waiting { way, since: Instant::now() });
        }
    }

    /// Closes those that have waited too long, for ever.
    pub async fn sweep(self: Arc<Self>) {
        loop {
            sleep(WAIT).await;
            let mut old = Vec::new();
            self.waiting().retain(|_, of_one| {
                let fresh = of_one.iter().position(|one| one.since.elapsed() <= WAIT).unwrap_or(of_one.len());
                old.extend(of_one.drain(..fresh));
                !of_one.is_empty()
            });
            // Without the lock.
            drop(old);
        }
    }
}

impl Lease {
    /// Where the request goes.
    pub fn sender(&mut self) -> &mut SendRequest<Sent> {
        &mut self.way.sender
    }

    /// No other request goes by this connection.
    pub fn is_last(&mut self) {
        self.way.again = None;
    }

    /// What counts the request. The connection is closed, unless somebody speaks another protocol on it.
    pub fn into_kept(self) -> Kept {
        self.kept
    }

    /// The answer has ended.
    fn done(self) {
        let Self { pool, host, mut way, kept } = self;
        drop(kept);
        if way.again.is_none() || way.requests >= MOST_REQUESTS || way.sender.is_closed() {
            return;
        }
        if way.sender.is_ready() {
            return pool.put(host, way);
        }
        tokio::spawn(async move {
            if let Ok(Ok(())) = timeout(READY, way.sender.ready()).await {
                pool.put(host, way);
            }
        });
    }
}

/// The body of a backend's answer, which gives the connection back at its end.
pub struct Answer {
    inner: Incoming,
    lease: Option<Lease>,
}

impl Answer {
    /// Has not begun.
    pub fn new(inner: Incoming, lease: Lease) -> Self {
        let mut answer = Self { inner, lease: Some(lease) };
        answer.look();
        answer
    }

    fn look(&mut self) {
        if self.inner.is_end_stream() {
            self.end();
        }
    }

    fn end(&mut self) {
        if let Some(lease) = self.lease.take() {
            lease.done();
        }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        let came = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        match &came {
            // Whoever reads it may not ask for the end if its length was known.
            Some(Ok(_)) => self.look(),
            Some(Err(_)) => self.lease = None,
            None => self.end(),
        }
        Poll::Ready(came)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
