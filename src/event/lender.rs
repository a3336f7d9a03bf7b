//! What an I/O thread does for a participant, for one that is on no thread: in tests.

use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::io::{Io, Own, Turn};
use super::place::{Bell, Place};
use super::ring::RingSlot;
use super::token::{Cause, Event, Token};
use super::wants::Wants;
use crate::error::Result;
use crate::memory::{BufferPool, FileRing};
use crate::sys::{Epoll, Ready, Watch};

/// How the kernel names the bell.
const BELL: u64 = u64::MAX;
/// And the ring.
const RING: u64 = u64::MAX - 1;

/// Lends to one participant, and waits for what it wants.
pub(crate) struct Lender {
    bell: Arc<Bell>,
    own: Own,
    pool: BufferPool,
    ring: RingSlot,
}

impl Lender {
    /// Lends buffers of at most `pool_bytes` together.
    pub(crate) fn new(pool_bytes: usize) -> Result<Self> {
        let bell = Arc::new(Bell::new()?);
        let place = Place::new(Arc::clone(&bell));
        place.settle(0);
        let ring = RingSlot::new(Arc::clone(&bell));
        Ok(Self { bell, own: Own::new(place), pool: BufferPool::new(pool_bytes), ring })
    }

    pub(crate) fn lend(&mut self) -> Io<'_> {
        self.serve_ring();
        Io { own: &mut self.own, pool: &self.pool, ring: &mut self.ring, turn: Turn::begin() }
    }

    /// What a thread does between two rounds.
    fn serve_ring(&mut self) {
        if let Some(ring) = self.ring.made() {
            ring.submit();
            ring.reap();
        }
    }

    /// The wakers that were used.
    pub(crate) fn woken(&mut self) -> Vec<Event> {
        self.serve_ring();
        self.bell.woken.drain(|_| ());
        let mut events = Vec::new();
        self.own.collect_wakes(&mut events);
        events
    }

    /// Waits until something happens that `wants` names, or a waker is used; gives nothing if `limit` passes.
    pub(crate) fn wait(&mut self, limit: Duration, wants: &Wants) -> Result<Vec<Event>> {
        let mut epoll = Epoll::new()?;
        epoll.add(self.bell.event.as_fd().as_raw_fd(), Watch::READABLE, BELL)?;
        if let Some(ring) = self.ring.made() {
            ring.submit();
            epoll.add(ring.as_raw_fd(), Watch::READABLE, RING)?;
        }
        for (key, descriptor) in (0..).zip(&wants.descriptors) {
            epoll.add(descriptor.fd, descriptor.watch, key)?;
        }
        let begun = Instant::now();
        loop {
            let left = limit.saturating_sub(begun.elapsed());
            let events = self.wait_once(&mut epoll, left, wants)?;
            if !events.is_empty() || left.is_zero() {
                return Ok(events);
            }
        }
    }

    fn wait_once(&mut self, epoll: &mut Epoll, limit: Duration, wants: &Wants) -> Result<Vec<Event>> {
        let until_deadline = wants.deadline.map(|(at, _)| at.saturating_duration_since(Instant::now()));
        self.bell.sleeping.store(true, Ordering::SeqCst);
        let has_news = self.ring.made().is_some_and(FileRing::has_news);
        let hurry = wants.again || has_news || self.bell.is_rung();
        let limit = if hurry { Duration::ZERO } else { until_deadline.map_or(limit, |until| until.min(limit)) };
        let mut ready = Vec::new();
        let waited = epoll.wait(Some(limit), &mut ready);
        self.bell.sleeping.store(false, Ordering::SeqCst);
        waited?;
        let mut events = self.woken();
        for Ready { key, readable, writable, hang_up } in ready {
            match usize::try_from(key).ok().and_then(|key| wants.descriptors.get(key)) {
                Some(descriptor) => {
                    events.push(Event::new(descriptor.token, Cause::Ready { readable, writable, hang_up }));
                }
                None => _ = self.bell.event.take(),
            }
        }
        if let Some((_, token)) = wants.deadline.filter(|(at, _)| *at <= Instant::now()) {
            events.push(Event::new(token, Cause::Deadline));
        }
        if wants.again {
            events.push(Event::new(Token(u32::MAX), Cause::Again));
        }
        Ok(events)
    }
}
