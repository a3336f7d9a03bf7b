//! Moves data between files and buffers without waiting, by io_uring, and owns each buffer until the kernel is done with it.

use std::any::Any;
use std::collections::VecDeque;
use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use super::buffer::Buffer;
use super::transfer::MAX_VECTORS;
use crate::sys::{Move, Uring, lock, lock_if_free};

/// How many files a ring serves. Others have to do without.
const FILES: u32 = 512;

/// How long the end of a ring, or of a port, waits for what is in flight.
const PATIENCE: Duration = Duration::from_millis(200);

static LEAKED: AtomicUsize = AtomicUsize::new(0);

/// What is done to a file.
#[derive(Debug)]
pub(crate) enum Transfer {
    /// Fills the buffer with the file's bytes from `at` on.
    Read { at: u64, into: Buffer },
    /// Writes the buffer from byte `at` of the file on, and to its storage if it is to be `stable`.
    Write { at: u64, from: Buffer, stable: bool },
    /// Makes the file's data stable.
    Sync,
}

/// A transfer that has ended.
#[derive(Debug)]
pub(crate) struct Transferred {
    /// The number that it was begun with.
    pub(crate) tag: u64,
    /// The transfer itself, with its buffer.
    pub(crate) transfer: Transfer,
    /// How many bytes were moved.
    pub(crate) result: io::Result<u64>,
}

/// An io_uring of the thread that makes it, for the files of many.
///
/// It owns what is in flight, also if whoever began it is gone. What is still in flight when the ring is dropped, and does not
/// end soon, is never freed; [`outlast`](Self::outlast) waits for it.
pub(crate) struct FileRing {
    uring: Uring,
    flights: Vec<Option<Flight>>,
    free: Vec<u32>,
    in_flight: usize,
    /// How many of these are counted as leaked.
    leaked: usize,
    ports: Vec<Option<Place>>,
    /// Ports that have got something since their owners were told.
    news: Vec<u32>,
    exits: Arc<Exits>,
}

struct Flight {
    port: u32,
    tag: u64,
    transfer: Transfer,
}

/// The ring's side of a port.
struct Place {
    /// Whatever must live until nothing is in flight any more.
    keeper: Arc<dyn Any + Send + Sync>,
    done: VecDeque<Transferred>,
    in_flight: usize,
    has_news: bool,
    /// Its owner has gone.
    has_left: bool,
    side: Arc<Side>,
}

/// One file's access to a ring. Dropping it waits for a moment until nothing of the file is in flight, unless the ring's own
/// thread drops it; what lasts longer ends by itself.
pub(crate) struct Port {
    place: u32,
    side: Arc<Side>,
    exits: Arc<Exits>,
}

/// What a port and its ring share.
struct Side {
    /// Tells the owner that there is something to take.
    tell: Box<dyn Fn() + Send + Sync>,
    /// The ring has forgotten the port.
    is_over: Mutex<bool>,
    over: Condvar,
}

/// The ports of a ring that were dropped, and that it is to forget.
struct Exits {
    places: Mutex<Vec<u32>>,
    any: AtomicBool,
    /// Makes the ring's thread look.
    call: Box<dyn Fn() + Send + Sync>,
    thread: ThreadId,
}

/// Returns how many transfers of this process are in flight although nobody uses their ring any more. Their buffers are not freed
/// until they end.
pub(crate) fn leaked_transfers() -> usize {
    LEAKED.load(Ordering::Relaxed)
}

impl FileRing {
    /// Makes a ring for the calling thread. `call` makes that thread [reap](Self::reap) soon, wherever it is called.
    ///
    /// # Errors
    /// What the kernel says if it has no io_uring that fits, or forbids it.
    pub(crate) fn new(call: impl Fn() + Send + Sync + 'static) -> io::Result<Self> {
        let (places, any) = (Mutex::default(), AtomicBool::new(false));
        let exits = Exits { places, any, call: Box::new(call), thread: thread::current().id() };
        Ok(Self {
            uring: Uring::new(FILES)?,
            flights: Vec::new(),
            free: Vec::new(),
            in_flight: 0,
            leaked: 0,
            ports: Vec::new(),
            news: Vec::new(),
            exits: Arc::new(exits),
        })
    }

    /// Takes a file in. The ring keeps it until nothing of it is in flight. `tell` is called when there is something to
    /// [take](Self::take) that was not there before.
    ///
    /// # Errors
    /// `StorageFull` if it has too many files; what the kernel says if it cannot take this one.
    pub(crate) fn open<F>(&mut self, file: &Arc<F>, tell: impl Fn() + Send + Sync + 'static) -> io::Result<Port>
    where
        F: AsFd + Send + Sync + 'static,
    {
        let place = self.free_place()?;
        self.uring.set_file(place, Some(file.as_fd()))?;
        let side = Arc::new(Side { tell: Box::new(tell), is_over: Mutex::new(false), over: Condvar::new() });
        let (keeper, done): (Arc<F>, _) = (Arc::clone(file), VecDeque::new());
        let entry = Place { keeper, done, in_flight: 0, has_news: false, has_left: false, side: Arc::clone(&side) };
        if let Some(port) = self.ports.get_mut(place as usize) {
            *port = Some(entry);
        }
        Ok(Port { place, side, exits: Arc::clone(&self.exits) })
    }

    fn free_place(&mut self) -> io::Result<u32> {
        if let Some(place) = self.ports.iter().position(Option::is_none) {
            return Ok(place as u32);
        }
        if self.ports.len() >= FILES as usize {
            let message = format!("an I/O thread's ring serves at most {FILES} files");
            return Err(io::Error::new(io::ErrorKind::StorageFull, message));
        }
        self.ports.push(None);
        Ok((self.ports.len() - 1) as u32)
    }

    /// Begins a transfer at the next [`submit`](Self::submit).
    ///
    /// # Errors
    /// The transfer, if too many are in flight, or the port is of another ring.
    pub(crate) fn begin(&mut self, port: &Port, tag: u64, transfer: Transfer) -> Result<(), Transfer> {
        let is_ours = Arc::ptr_eq(&port.exits, &self.exits);
        let Some(place) = self.ports.get_mut(port.place as usize).and_then(Option::as_mut).filter(|_| is_ours) else {
            return Err(transfer);
        };
        let Some(flight) = free_flight(&mut self.flights, &mut self.free) else { return Err(transfer) };
        if !push(&mut self.uring, port.place, flight, &transfer) {
            self.free.push(flight);
            return Err(transfer);
        }
        place.in_flight += 1;
        self.in_flight += 1;
        if let Some(slot) = self.flights.get_mut(flight as usize) {
            *slot = Some(Flight { port: port.place, tag, transfer });
        }
        Ok(())
    }

    /// Hands over what was begun. Does not wait for storage.
    pub(crate) fn submit(&mut self) {
        self.uring.submit();
    }

    /// Whether [`reap`](Self::reap) would find something. Costs no system call.
    pub(crate) fn has_news(&mut self) -> bool {
        self.uring.has_completions() || self.exits.any.load(Ordering::SeqCst)
    }

    /// How many transfers are in flight.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Whether something was begun that the kernel did not take yet.
    pub(crate) fn has_begun(&mut self) -> bool {
        self.uring.has_pushed()
    }

    /// Sorts what has ended to the ports, and tells their owners.
    pub(crate) fn reap(&mut self) {
        if self.uring.has_completions() {
            self.uring.submit();
        }
        while let Some((id, result)) = self.uring.next() {
            self.land(id, result);
        }
        self.take_exits();
        let mut news = mem::take(&mut self.news);
        for place in news.drain(..) {
            self.tell(place);
        }
        self.news = news;
    }

    fn land(&mut self, id: u64, result: i32) {
        let slot = usize::try_from(id).ok().and_then(|id| self.flights.get_mut(id));
        let Some(Flight { port, tag, transfer }) = slot.and_then(Option::take) else { return };
        self.free.push(id as u32);
        self.in_flight -= 1;
        let Some(place) = self.ports.get_mut(port as usize).and_then(Option::as_mut) else { return };
        place.in_flight -= 1;
        let result = u64::try_from(result).map_err(|_| io::Error::from_raw_os_error(result.saturating_neg()));
        place.done.push_back(Transferred { tag, transfer, result });
        self.note(port);
    }

    fn take_exits(&mut self) {
        if !self.exits.any.swap(false, Ordering::SeqCst) {
            return;
        }
        let exits = Arc::clone(&self.exits);
        let Some(mut places) = lock_if_free(&exits.places) else {
            return exits.any.store(true, Ordering::SeqCst);
        };
        for port in places.drain(..) {
            if let Some(place) = self.ports.get_mut(port as usize).and_then(Option::as_mut) {
                place.has_left = true;
                self.note(port);
            }
        }
    }

    fn note(&mut self, port: u32) {
        if let Some(place) = self.ports.get_mut(port as usize).and_then(Option::as_mut)
            && !mem::replace(&mut place.has_news, true)
        {
            self.news.push(port);
        }
    }

    /// Tells a port's owner that there is something to take, or forgets a port whose owner has left.
    fn tell(&mut self, port: u32) {
        let Some(slot) = self.ports.get_mut(port as usize) else { return };
        let Some(place) = slot.as_mut() else { return };
        place.has_news = false;
        if !place.has_left {
            return (place.side.tell)();
        }
        place.done.clear();
        if place.in_flight == 0 {
            // Cannot fail for an empty place; if it did, the file would stay open until the next one takes its place.
            let _ = self.uring.set_file(port, None);
            if let Some(place) = slot.take() {
                place.end();
            }
        }
    }

    /// Returns a transfer of the port that has ended.
    pub(crate) fn take(&mut self, port: &Port) -> Option<Transferred> {
        if !Arc::ptr_eq(&port.exits, &self.exits) {
            return None;
        }
        self.ports.get_mut(port.place as usize)?.as_mut()?.done.pop_front()
    }

    /// Waits for a moment until nothing is in flight, and says whether that is so. What is left counts as leaked from then on.
    pub(crate) fn settle(&mut self) -> bool {
        let begun = Instant::now();
        while self.in_flight > 0
            && let Some(left) = PATIENCE.checked_sub(begun.elapsed())
        {
            self.uring.wait(left);
            self.reap();
        }
        self.count_leaked();
        self.in_flight == 0
    }

    /// After [`settle`](Self::settle), waits until nothing is in flight, however long that takes.
    pub(crate) fn outlast(&mut self) {
        while self.in_flight > 0 {
            let (before, begun) = (self.in_flight, Instant::now());
            self.uring.wait(PATIENCE);
            self.reap();
            self.count_leaked();
            // A kernel that does not let us wait is not asked all the time.
            if self.in_flight == before {
                thread::sleep(PATIENCE.saturating_sub(begun.elapsed()));
            }
        }
    }

    fn count_leaked(&mut self) {
        let before = mem::replace(&mut self.leaked, self.in_flight);
        LEAKED.fetch_add(self.in_flight.saturating_sub(before), Ordering::SeqCst);
        LEAKED.fetch_sub(before.saturating_sub(self.in_flight), Ordering::SeqCst);
    }
}

impl AsRawFd for FileRing {
    fn as_raw_fd(&self) -> RawFd {
        self.uring.as_raw_fd()
    }
}

impl Place {
    fn end(self) {
        let Self { keeper, side, .. } = self;
        drop(keeper);
        *lock(&side.is_over) = true;
        side.over.notify_all();
    }
}

fn free_flight(flights: &mut Vec<Option<Flight>>, free: &mut Vec<u32>) -> Option<u32> {
    if free.is_empty() && flights.len() < Uring::IN_FLIGHT {
        flights.push(None);
        free.push((flights.len() - 1) as u32);
    }
    free.pop()
}

/// Hands a transfer to the ring, which must then be kept until it ends.
fn push(uring: &mut Uring, place: u32, flight: u32, transfer: &Transfer) -> bool {
    let mut one = [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }];
    let what = match transfer {
        Transfer::Read { at, into } => {
            let (vectors, count) = vectors(into, &mut one);
            Move::Read { vectors, count, at: *at }
        }
        Transfer::Write { at, from, stable } => {
            let (vectors, count) = vectors(from, &mut one);
            Move::Write { vectors, count, at: *at, stable: *stable }
        }
        Transfer::Sync => Move::Sync,
    };
    // SAFETY: several vectors are those of the transfer, which its flight keeps until the kernel is done; a single one is read
    // in this call. What they lead to is guest memory that the transfer's lease keeps mapped and that no reference reaches, or
    // bytes of a buffer that the transfer owns. A ring that ends before that leaks its flights.
    let mut push = || unsafe { uring.push(place, flight.into(), what) };
    if push() {
        return true;
    }
    uring.submit();
    // SAFETY: as above.
    unsafe { uring.push(place, flight.into(), what) }
}

fn vectors(buffer: &Buffer, one: &mut [libc::iovec; 1]) -> (*const libc::iovec, u32) {
    match buffer {
        Buffer::Guest(ranges) => {
            let vectors = ranges.as_iovecs();
            // What does not fit makes this a transfer of a part.
            (vectors.as_ptr(), vectors.len().min(MAX_VECTORS) as u32)
        }
        Buffer::Host(buffer) => {
            *one = [libc::iovec { iov_base: buffer.as_ptr().cast_mut().cast(), iov_len: buffer.len() }];
            (one.as_ptr(), 1)
        }
    }
}

impl Drop for FileRing {
    fn drop(&mut self) {
        self.settle();
        // The kernel may still reach into their buffers.
        mem::take(&mut self.flights).into_iter().for_each(mem::forget);
        for port in self.ports.drain(..).flatten() {
            if port.in_flight > 0 {
                mem::forget(Arc::clone(&port.keeper));
            }
            port.end();
        }
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        lock(&self.exits.places).push(self.place);
        self.exits.any.store(true, Ordering::SeqCst);
        (self.exits.call)();
        if self.exits.thread != thread::current().id() {
            let is_over = lock(&self.side.is_over);
            let waited = self.side.over.wait_timeout_while(is_over, PATIENCE, |is_over| !*is_over);
            drop(waited.unwrap_or_else(PoisonError::into_inner));
        }
    }
}

#[cfg(test)]
#[path = "file_ring_test.rs"]
mod tests;
