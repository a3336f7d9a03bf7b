//! Moves data between files and buffers without waiting, by io_uring, and owns each buffer until the kernel is done with it.

use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::flight::{Flight, MOST_CANCELS, MOST_FLIGHTS, Transfer, Transferred};
use super::retry::{Pauses, Periods, Verdict};
use super::ring_entry::push;
use super::ring_port::{Exits, PATIENCE, Place, Port, Side};
use crate::sys::{Uring, file_limit};

/// How many files a ring serves at the most. Others have to do without.
const FILES: u32 = 512;

/// As many of the kernel's threads wait for storage at the most.
const WORKERS: usize = Uring::WORKERS as usize;

/// Marks what the ring asks of the kernel for itself; no flight has this number.
const CANCEL: u64 = 1 << 63;

static LEAKED: AtomicUsize = AtomicUsize::new(0);

/// An io_uring of the thread that makes it, for the files of many.
///
/// It owns what is in flight, also if whoever began it is gone. What is still in flight when the ring is dropped, and does not
/// end soon, is never freed; [`outlast`](Self::outlast) waits for it.
///
/// If the kernel does not take anything any more, the ring is [given up](Self::given_up): what the kernel never took ends with
/// `ECANCELED`, and so does what none of the kernel's threads has begun because storage that does not answer holds them all (a
/// jam).
pub(crate) struct FileRing {
    uring: Uring,
    flights: Vec<Option<Flight>>,
    free: Vec<u32>,
    in_flight: usize,
    /// How many of these are counted as leaked.
    leaked: usize,
    ports: Vec<Option<Place>>,
    /// How many ports there may be.
    files: u32,
    /// Ports that have got something since their owners were told.
    news: Vec<u32>,
    exits: Arc<Exits>,
    /// How much the ring was given in all.
    given: u64,
    pauses: Pauses,
    given_up: Option<String>,
    periods: Periods,
    /// Flights that have had their chance to be taken back.
    tried: usize,
    cancels: usize,
    /// Numbers the jams: it changes when one may be over.
    jam: u32,
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
        let files = FILES.min(file_limit());
        Ok(Self {
            uring: Uring::new(files)?,
            flights: Vec::new(),
            free: Vec::new(),
            in_flight: 0,
            leaked: 0,
            ports: Vec::new(),
            files,
            news: Vec::new(),
            exits: Exits::new(call),
            given: 0,
            pauses: Pauses::default(),
            given_up: None,
            periods: Periods::default(),
            tried: 0,
            cancels: 0,
            jam: 0,
        })
    }

    /// Takes a file in. The ring keeps it until nothing of it is in flight. `tell` is called when there is something to
    /// [take](Self::take) that was not there before.
    ///
    /// # Errors
    /// `StorageFull` if it has too many files; what the kernel says if it cannot take this one; why the ring was given up.
    pub(crate) fn open<F>(&mut self, file: &Arc<F>, tell: impl Fn() + Send + Sync + 'static) -> io::Result<Port>
    where
        F: AsFd + Send + Sync + 'static,
    {
        if let Some(reason) = &self.given_up {
            return Err(io::Error::other(reason.clone()));
        }
        let place = self.free_place()?;
        self.uring.set_file(place, Some(file.as_fd()))?;
        let (side, keeper) = (Side::new(tell), Arc::clone(file));
        if let Some(port) = self.ports.get_mut(place as usize) {
            *port = Some(Place::new(keeper, Arc::clone(&side)));
        }
        Ok(Port { place, side, exits: Arc::clone(&self.exits) })
    }

    fn free_place(&mut self) -> io::Result<u32> {
        if let Some((place, _)) = (0..).zip(&self.ports).find(|(_, port)| port.is_none()) {
            return Ok(place);
        }
        let place = u32::try_from(self.ports.len()).unwrap_or(u32::MAX);
        if place >= self.files {
            let message = format!("the I/O thread's ring serves {} files already", self.files);
            return Err(io::Error::new(io::ErrorKind::StorageFull, message));
        }
        self.ports.push(None);
        Ok(place)
    }

    /// Begins a transfer at the next [`submit`](Self::submit).
    ///
    /// # Errors
    /// The transfer, if too many are in flight, the ring was given up or is jammed, or the port is of another ring.
    pub(crate) fn begin(&mut self, port: &Port, tag: u64, transfer: Transfer) -> Result<(), Transfer> {
        let is_open = self.given_up.is_none() && Arc::ptr_eq(&port.exits, &self.exits);
        let Some(place) = self.ports.get_mut(port.place as usize).and_then(Option::as_mut).filter(|_| is_open) else {
            return Err(transfer);
        };
        if place.jam == Some(self.jam) {
            return Err(transfer);
        }
        let Some(flight) = free_flight(&mut self.flights, &mut self.free) else { return Err(transfer) };
        // SAFETY: its flight keeps the transfer until the kernel is done. A ring that ends before that leaks its flights.
        if !unsafe { push(&mut self.uring, port.place, flight, &transfer) } {
            self.free.push(flight);
            return Err(transfer);
        }
        // No more than there are flights.
        place.in_flight = place.in_flight.saturating_add(1);
        self.in_flight = self.in_flight.saturating_add(1);
        let (number, period) = (self.given, self.periods.present());
        self.given = self.given.saturating_add(1);
        if let Some(slot) = self.flights.get_mut(flight as usize) {
            *slot = Some(Flight { port: port.place, tag, transfer, number, period, is_tried: false });
        }
        Ok(())
    }

    /// Hands over what was begun. Does not wait for storage.
    pub(crate) fn submit(&mut self) {
        if !self.pauses.are_over() {
            return;
        }
        if self.may_jam() && self.periods.turn_over(Instant::now()) {
            self.take_back_what_waits();
        }
        match self.uring.submit() {
            Ok(()) => self.pauses.succeeded(),
            Err(error) if self.pauses.refused(&error) == Verdict::GiveUp => {
                self.give_up(format!(
                    "the kernel does not take what this thread's io_uring is given any more ({error})"
                ));
            }
            Err(_) => {}
        }
    }

    /// Why the ring was given up, if it was.
    pub(crate) fn given_up(&self) -> Option<&str> {
        self.given_up.as_deref()
    }

    /// Hands nothing over any more. What the kernel never took ends; what it took goes on.
    fn give_up(&mut self, reason: String) {
        let never_taken = self.uring.close() as u64;
        self.given_up = Some(reason);
        let first = self.given.saturating_sub(never_taken);
        for id in 0..self.flights.len() {
            if self.flights.get(id).and_then(Option::as_ref).is_some_and(|flight| flight.number >= first) {
                self.land(id as u64, -libc::ECANCELED);
            }
        }
        // Whoever has nothing in flight is to know as well.
        (0..self.files).for_each(|port| self.note(port));
    }

    /// Whether all of the kernel's threads may be held by transfers that have not been looked at yet.
    fn may_jam(&self) -> bool {
        self.in_flight >= WORKERS && self.tried < self.in_flight
    }

    /// Takes back what no thread of the kernel has begun for long, if as much is in flight as there are threads.
    ///
    /// The kernel knows which that is. What it moves without a thread goes on, and so does what a thread has begun.
    fn take_back_what_waits(&mut self) {
        let is_old = |flight: &Flight| self.periods.is_old(flight.period);
        if self.flights.iter().flatten().filter(|flight| is_old(flight)).count() < WORKERS {
            return;
        }
        for (id, flight) in self.flights.iter_mut().enumerate() {
            let Some(flight) = flight.as_mut().filter(|flight| is_old(flight) && !flight.is_tried) else { continue };
            if self.cancels >= MOST_CANCELS || !self.uring.push_cancel(CANCEL | id as u64, id as u64) {
                return;
            }
            self.given = self.given.saturating_add(1);
            self.cancels = self.cancels.saturating_add(1);
            flight.is_tried = true;
            self.tried = self.tried.saturating_add(1);
        }
    }

    /// Whether [`reap`](Self::reap) would find something. Costs no system call.
    pub(crate) fn has_news(&mut self) -> bool {
        self.uring.has_completions() || self.exits.are_any() || !self.news.is_empty()
    }

    /// When the ring is to [submit](Self::submit) again although nothing happens.
    pub(crate) fn next_moment(&mut self) -> Option<Duration> {
        let refused = self.uring.has_pushed().then(|| self.pauses.left());
        let jam = self.may_jam().then(|| self.periods.left());
        refused.into_iter().chain(jam).min()
    }

    /// How many transfers are in flight.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Sorts what has ended to the ports, and tells their owners.
    pub(crate) fn reap(&mut self) {
        if self.uring.has_completions() && self.pauses.are_over() {
            // If it is refused, so is the next submission.
            let _ = self.uring.submit();
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
        if id & CANCEL != 0 {
            self.cancels = self.cancels.saturating_sub(1);
            return;
        }
        let Ok(id) = u32::try_from(id) else { return };
        let Some(flight) = self.flights.get_mut(id as usize).and_then(Option::take) else { return };
        self.free.push(id);
        self.in_flight = self.in_flight.saturating_sub(1);
        self.tried = self.tried.saturating_sub(flight.is_tried.into());
        let was_waiting = flight.is_tried && result == -libc::ECANCELED;
        if flight.is_tried && !was_waiting {
            // A thread of the kernel may be free again.
            self.jam = self.jam.wrapping_add(1);
        }
        let Flight { port, tag, transfer, .. } = flight;
        let Some(place) = self.ports.get_mut(port as usize).and_then(Option::as_mut) else { return };
        place.in_flight = place.in_flight.saturating_sub(1);
        if was_waiting {
            place.jam = Some(self.jam);
        }
        let result = u64::try_from(result).map_err(|_| io::Error::from_raw_os_error(result.saturating_neg()));
        place.done.push_back(Transferred { tag, transfer, result });
        self.note(port);
    }

    fn take_exits(&mut self) {
        let exits = Arc::clone(&self.exits);
        exits.drain(|port| {
            if let Some(place) = self.ports.get_mut(port as usize).and_then(Option::as_mut) {
                place.has_left = true;
                self.note(port);
            }
        });
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
        if self.uring.has_pushed() {
            self.give_up("the thread ends".to_owned());
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

fn free_flight(flights: &mut Vec<Option<Flight>>, free: &mut Vec<u32>) -> Option<u32> {
    if free.is_empty() && flights.len() < MOST_FLIGHTS {
        free.push(u32::try_from(flights.len()).ok()?);
        flights.push(None);
    }
    free.pop()
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

#[cfg(test)]
#[path = "file_ring_test.rs"]
mod tests;
