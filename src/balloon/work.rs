//! What a driver asks for in one chain, done step by step: pages in, pages out, and free pages.

use super::PAGE;
use super::pages::Pages;
use crate::event::Io;
use crate::memory::{GuestAddress, GuestMemory};
use crate::meter::{Counter, Meter};
use crate::virtio::Chain;

/// A page's number as the driver writes it.
const NUMBER: u32 = 4;
/// So many numbers are read at once. Linux sends so many.
const AT_ONCE: usize = 256;
const BYTES: usize = NUMBER as usize * AT_ONCE;
/// What looking at a page's number counts in a turn, in bytes.
const NUMBER_CHARGE: u64 = 32;

/// What the guest has done.
#[derive(Default)]
pub(super) struct Counters {
    inflated: Counter,
    deflated: Counter,
    reported: Counter,
    repeated: Counter,
    refused: Counter,
    kept: Counter,
    pub(super) statistics: Counter,
}

impl Counters {
    pub(super) fn show(&self, meter: &mut Meter) {
        meter.counter("inflated_pages", &self.inflated);
        meter.counter("deflated_pages", &self.deflated);
        meter.counter("reported_bytes", &self.reported);
        meter.counter("repeated_pages", &self.repeated);
        meter.counter("refused_pages", &self.refused);
        meter.counter("kept_bytes", &self.kept);
        meter.counter("statistics", &self.statistics);
    }

    /// The one for free pages that were reported.
    pub(super) fn reported(&self) -> &Counter {
        &self.reported
    }
}

/// What chains are worked on with.
pub(super) struct Bench<'a> {
    pub(super) memory: &'a GuestMemory,
    pub(super) pages: &'a mut Pages,
    pub(super) counters: &'a Counters,
}

/// What the chains of a queue are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Job {
    /// Numbers of pages that go into the balloon.
    Inflate,
    /// Numbers of pages that come out of it.
    Deflate,
    /// Free pages themselves.
    Report,
}

/// Pages in a row, which go back together.
#[derive(Clone, Copy)]
struct Run {
    first: u64,
    count: u64,
}

impl Run {
    /// Adds a page if it is next to the others.
    fn join(&mut self, page: u64) -> bool {
        if self.first.checked_add(self.count) == Some(page) {
            self.count = self.count.saturating_add(1);
        } else if page.checked_add(1) == Some(self.first) {
            (self.first, self.count) = (page, self.count.saturating_add(1));
        } else {
            return false;
        }
        true
    }
}

impl Bench<'_> {
    /// Works on a chain from its byte `done` on, until it is done or the turn is over, and says which. `done` is where to go on.
    pub(super) fn work(&mut self, io: &mut Io, job: Job, chain: &Chain, done: &mut u32) -> bool {
        loop {
            let more = match job {
                Job::Inflate => self.inflate(io, chain, done),
                Job::Deflate => self.deflate(io, chain, done),
                Job::Report => self.report(io, chain, done),
            };
            if !more || io.spent() {
                return !more;
            }
        }
    }

    /// Gives back the next pages that lie in a row. Says whether there may be more.
    fn inflate(&mut self, io: &mut Io, chain: &Chain, done: &mut u32) -> bool {
        let mut bytes = [0; BYTES];
        let numbers = read_numbers(chain, *done, &mut bytes);
        let mut run: Option<Run> = None;
        let mut seen = 0u32;
        for number in numbers {
            let page = u64::from(number);
            let is_ram = self.memory.contains(GuestAddress(page.saturating_mul(PAGE)), PAGE);
            if run.is_some_and(|mut run| is_ram && !run.join(page)) {
                // The next step begins with it.
                break;
            }
            seen = seen.saturating_add(1);
            if !is_ram {
                self.counters.refused.add(1);
            } else if self.pages.insert(page) {
                match &mut run {
                    Some(run) => _ = run.join(page),
                    None => run = Some(Run { first: page, count: 1 }),
                }
            } else {
                self.counters.repeated.add(1);
            }
        }
        io.charge(NUMBER_CHARGE.saturating_mul(seen.into()));
        if let Some(run) = run {
            self.counters.inflated.add(run.count);
            self.give_back(io, run);
        }
        step(done, seen)
    }

    fn give_back(&mut self, io: &mut Io, run: Run) {
        let (mut gpa, mut left) = (GuestAddress(run.first.saturating_mul(PAGE)), run.count.saturating_mul(PAGE));
        while let Some(given) = self.memory.give_back(gpa, left) {
            io.charge(given.cost);
            if given.result.is_err() {
                self.counters.kept.add(given.len);
            }
            let Some(next) = gpa.checked_add(given.len) else { return };
            (gpa, left) = (next, left.saturating_sub(given.len));
        }
    }

    fn deflate(&mut self, io: &mut Io, chain: &Chain, done: &mut u32) -> bool {
        let mut bytes = [0; BYTES];
        let mut seen = 0u32;
        for number in read_numbers(chain, *done, &mut bytes) {
            seen = seen.saturating_add(1);
            let counter =
                if self.pages.remove(number.into()) { &self.counters.deflated } else { &self.counters.refused };
            counter.add(1);
        }
        io.charge(NUMBER_CHARGE.saturating_mul(seen.into()));
        step(done, seen)
    }

    /// Gives back the next part of what is reported: whole pages alone.
    fn report(&mut self, io: &mut Io, chain: &Chain, done: &mut u32) -> bool {
        let Some(segment) = chain.writable_range(*done, u32::MAX).next() else { return false };
        // The driver has many in a chain, which are gone through each time.
        io.charge(NUMBER_CHARGE.saturating_mul(chain.writable().len() as u64));
        let (start, len) = (segment.gpa.0, u64::from(segment.len));
        let skipped = start.next_multiple_of(PAGE).saturating_sub(start).min(len);
        let whole = len.saturating_sub(skipped);
        let whole = whole.saturating_sub(whole.checked_rem(PAGE).unwrap_or_default());
        let given = segment.gpa.checked_add(skipped).and_then(|gpa| self.memory.give_back(gpa, whole));
        let advanced = match given {
            // Not even one page, or the rest of one.
            None => {
                self.counters.refused.add(1);
                len
            }
            Some(given) => {
                io.charge(given.cost);
                let counter = if given.result.is_ok() { &self.counters.reported } else { &self.counters.kept };
                counter.add(given.len);
                skipped.saturating_add(given.len)
            }
        };
        *done = done.saturating_add(u32::try_from(advanced).unwrap_or(u32::MAX));
        true
    }
}

/// The next numbers of a chain; less than a whole one is none.
fn read_numbers<'a>(chain: &Chain, done: u32, bytes: &'a mut [u8]) -> impl Iterator<Item = u32> + use<'a> {
    let left = usize::try_from(chain.readable_len().saturating_sub(done)).unwrap_or(usize::MAX);
    let len = left.min(bytes.len());
    let bytes = bytes.get_mut(..len).unwrap_or_default();
    let bytes = if chain.read(done, bytes).is_ok() { bytes } else { &mut [] };
    bytes.chunks_exact(NUMBER as usize).filter_map(|number| Some(u32::from_le_bytes(number.try_into().ok()?)))
}

/// Goes on by so many numbers. Says whether there were any.
fn step(done: &mut u32, numbers: u32) -> bool {
    *done = done.saturating_add(numbers.saturating_mul(NUMBER));
    numbers > 0
}
