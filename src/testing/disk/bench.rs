//! Drives a backend as a disk does: one call at a time, and none without a reason.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::data::{Arena, Print};
use crate::block::{DiskBackend, DiskInfo, Done, Operation, Slab};
use crate::event::{Cause, Io};
use crate::testing::IoRig;

/// A backend at work.
pub(super) struct Bench {
    pub(super) arena: Arena,
    backend: Box<dyn DiskBackend>,
    rig: IoRig,
    in_flight: Slab<InFlight>,
    waiting: VecDeque<(usize, Operation)>,
    finished: Vec<Option<Finished>>,
    full: bool,
    patience: Duration,
    /// The longest call of all, and which it was.
    longest: (Duration, &'static str),
}

struct InFlight {
    index: usize,
    print: Print,
}

/// An operation that is done.
pub(super) struct Finished {
    pub(super) operation: Operation,
    pub(super) result: std::io::Result<()>,
}

impl Bench {
    /// Attaches a backend to a thread whose pool has so many bytes.
    pub(super) fn new(backend: Box<dyn DiskBackend>, pool: usize, patience: Duration) -> Result<Self, String> {
        let mut bench = Self {
            arena: Arena::new(),
            backend,
            rig: IoRig::with_pool(pool),
            in_flight: Slab::new(usize::MAX),
            waiting: VecDeque::new(),
            finished: Vec::new(),
            full: false,
            patience,
            longest: (Duration::ZERO, "none"),
        };
        bench.attach()?;
        Ok(bench)
    }

    /// Moves the backend to another thread.
    pub(super) fn move_to(&mut self, rig: IoRig) -> Result<IoRig, String> {
        let past = std::mem::replace(&mut self.rig, rig);
        self.attach()?;
        Ok(past)
    }

    fn attach(&mut self) -> Result<(), String> {
        self.call("attach", |backend, io| backend.attach(io)).map_err(|error| format!("attach: {}", error.chain()))
    }

    pub(super) fn info(&self) -> DiskInfo {
        self.backend.info()
    }

    /// The info once it says this capacity, or after a while. A backend may look at the size elsewhere.
    pub(super) fn info_of(&mut self, capacity: u64) -> DiskInfo {
        let begun = Instant::now();
        while self.info().capacity != capacity && begun.elapsed() < self.patience {
            self.call("completed", |backend, io| backend.completed(io));
            std::thread::sleep(Duration::from_millis(1));
        }
        self.info()
    }

    pub(super) fn longest(&self) -> (Duration, &'static str) {
        self.longest
    }

    pub(super) fn refresh(&mut self) {
        self.call("refresh", |backend, io| backend.refresh(io));
    }

    pub(super) fn cancel(&mut self) {
        self.call("cancel", |backend, io| backend.cancel(io));
    }

    /// Drops the backend, whatever it has in flight, and leaves the guest's memory.
    pub(super) fn into_arena(self) -> Arena {
        self.arena
    }

    fn call<R>(&mut self, what: &'static str, call: impl FnOnce(&mut dyn DiskBackend, &mut Io) -> R) -> R {
        let begun = Instant::now();
        let result = call(&mut *self.backend, &mut self.rig.turn());
        self.longest = self.longest.max((begun.elapsed(), what));
        result
    }

    /// Carries out one operation.
    pub(super) fn run(&mut self, operation: Operation) -> Result<Finished, String> {
        self.begin(vec![operation])?;
        self.finish()?.pop().ok_or_else(|| "nothing is done".to_owned())
    }

    /// Carries out one operation, which must succeed.
    pub(super) fn succeed(&mut self, operation: Operation) -> Result<Operation, String> {
        let print = Print::of(&operation);
        let finished = self.run(operation)?;
        finished.result.map_err(|error| format!("{print}: {error}"))?;
        Ok(finished.operation)
    }

    /// Submits operations, as far as there is room now.
    pub(super) fn begin(&mut self, operations: Vec<Operation>) -> Result<(), String> {
        self.finished.clear();
        self.finished.resize_with(operations.len(), || None);
        self.waiting.extend(operations.into_iter().enumerate());
        self.submit_waiting().map(drop)
    }

    /// Goes on until all is done; gives the operations in the order in which they were begun with.
    pub(super) fn finish(&mut self) -> Result<Vec<Finished>, String> {
        let mut progress = Instant::now();
        while !(self.in_flight.is_empty() && self.waiting.is_empty()) {
            let done = self.take_completions()?;
            if done || self.submit_waiting()? {
                progress = Instant::now();
                continue;
            }
            self.wait(progress)?;
        }
        self.arena.check_gaps()?;
        self.finished.drain(..).map(|finished| finished.ok_or_else(|| "an operation was lost".to_owned())).collect()
    }

    /// Waits a moment for what should not come.
    pub(super) fn linger(&mut self, time: Duration) -> Result<(), String> {
        let begun = Instant::now();
        while begun.elapsed() < time {
            self.take_completions()?;
            self.wait_for_events(time.saturating_sub(begun.elapsed()))?;
        }
        self.take_completions().map(drop)
    }

    /// Tells the backend of something that happened to somebody else.
    pub(super) fn mislead(&mut self) -> Result<(), String> {
        let strange = self.rig.turn().token();
        for cause in [Cause::Woken, Cause::Deadline, Cause::Again] {
            let event = crate::event::Event::new(strange, cause);
            self.call("woken", |backend, io| backend.woken(io, &event));
        }
        self.take_completions().map(drop)
    }

    fn take_completions(&mut self) -> Result<bool, String> {
        let mut any = false;
        while let Some(done) = self.call("completed", |backend, io| backend.completed(io)) {
            any = true;
            self.full = false;
            self.take(done)?;
        }
        Ok(any)
    }

    fn take(&mut self, done: Done) -> Result<(), String> {
        let Done { tag, operation, result } = done;
        let print = Print::of(&operation);
        let Some(InFlight { index, print: asked }) = self.in_flight.remove(tag) else {
            return Err(format!("completed under a tag that is not in flight, twice or invented: {print}"));
        };
        if asked != print {
            return Err(format!("asked for a {asked}, and got back another one: {print}"));
        }
        if let Some(place) = self.finished.get_mut(index) {
            *place = Some(Finished { operation, result });
        }
        Ok(())
    }

    fn submit_waiting(&mut self) -> Result<bool, String> {
        let mut any = false;
        while !self.full
            && let Some((index, operation)) = self.waiting.pop_front()
        {
            any |= self.submit(index, operation)?;
        }
        if any {
            self.call("commit", |backend, io| backend.commit(io));
        }
        Ok(any)
    }

    fn submit(&mut self, index: usize, operation: Operation) -> Result<bool, String> {
        let print = Print::of(&operation);
        let Ok(tag) = self.in_flight.insert(InFlight { index, print: print.clone() }) else {
            return Err("more operations are in flight than can be counted".to_owned());
        };
        let Err(operation) = self.call("submit", |backend, io| backend.submit(io, tag, operation)) else {
            return Ok(true);
        };
        self.in_flight.remove(tag);
        let back = Print::of(&operation);
        if back != print {
            return Err(format!("had no room for a {print}, and gave back another one: {back}"));
        }
        self.waiting.push_front((index, operation));
        self.full = true;
        Ok(false)
    }

    /// Waits for a reason to call the backend again.
    fn wait(&mut self, progress: Instant) -> Result<(), String> {
        let left = self.patience.saturating_sub(progress.elapsed());
        if left.is_zero() || !self.wait_for_events(left)? {
            let (in_flight, waiting, limit) = (self.in_flight.len(), self.waiting.len(), self.patience);
            return Err(format!(
                "{in_flight} operations were not completed and {waiting} not taken, and nothing woke it for {limit:?}"
            ));
        }
        Ok(())
    }

    /// Says whether something happened.
    fn wait_for_events(&mut self, limit: Duration) -> Result<bool, String> {
        let backend = &self.backend;
        let events = self.rig.wait(limit, |wants| backend.wants(wants)).map_err(|error| error.chain().to_string())?;
        for event in &events {
            self.full = false;
            if event.cause != Cause::Again {
                self.call("woken", |backend, io| backend.woken(io, event));
            }
        }
        Ok(!events.is_empty())
    }
}
