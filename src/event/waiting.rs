//! How an I/O thread waits: it looks for something to do for a while, if that seems worth while, and sleeps then.

use std::mem;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::reactor::Reactor;
use crate::error::Result;
use crate::memory::FileRing;

/// A thread that has something to do looks for more in the kernel once in so many rounds.
const LOOK_EVERY: u8 = 4;
/// And one that looks for something to do does so after this time.
const LOOK_AFTER: Duration = Duration::from_micros(4);

/// So many members are looked at without being rung for.
const MOST_AWAKE: usize = 16;

/// How it went to look for something to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    Found,
    Vain,
    /// It did not look.
    Skipped,
}

impl Reactor {
    /// Finds out what there is to do, and waits until there is something.
    pub(super) fn wait(&mut self) -> Result<()> {
        self.look_at_members();
        if self.is_busy() {
            return self.look_now_and_then();
        }
        self.rounds_without_look = 0;
        let situation = usize::from(self.ring.made().is_some_and(|ring| ring.in_flight() > 0));
        let looked = self.look_for_a_while(situation)?;
        if looked == Look::Found || self.rest() {
            return Ok(());
        }
        let began = Instant::now();
        self.bell.sleeping.store(true, Ordering::SeqCst);
        let limit = if self.is_busy() || self.bell.is_rung() { Some(Duration::ZERO) } else { self.until_next_moment() };
        let waited = self.look(limit);
        self.bell.sleeping.store(false, Ordering::SeqCst);
        if let (Look::Skipped, Some(window)) = (looked, self.windows.get_mut(situation)) {
            window.slept_for(began.elapsed(), &self.bell.polling);
        }
        waited
    }

    fn is_busy(&mut self) -> bool {
        !self.queue.is_empty() || self.ring.made().is_some_and(FileRing::has_news)
    }

    /// What the kernel has is looked at even if there is enough to do, but not in each round.
    fn look_now_and_then(&mut self) -> Result<()> {
        self.rounds_without_look = self.rounds_without_look.wrapping_add(1) % LOOK_EVERY;
        if self.rounds_without_look == 0 { self.look(Some(Duration::ZERO)) } else { Ok(()) }
    }

    /// Gives those of the members that are awake a turn that have something to do. Only a few stay awake.
    fn look_at_members(&mut self) {
        while self.awake.len() > MOST_AWAKE
            && let Some(slot) = self.awake.pop_front()
        {
            self.rest_one(slot);
        }
        for position in 0..self.awake.len() {
            let Some(slot) = self.awake.get(position).copied() else { return };
            if self.members.get_mut(slot).and_then(Option::as_mut).is_some_and(|member| member.participant.has_work()) {
                self.enqueue(slot);
            }
        }
    }

    /// Looks again and again for something to do, as long as that seems worth while.
    fn look_for_a_while(&mut self, situation: usize) -> Result<Look> {
        let length = self.windows.get(situation).map_or(Duration::ZERO, |window| window.length(&self.bell.polling));
        // Nor if it is not long until something is to be done anyway.
        let is_near = self.until_next_moment().is_some_and(|until| until <= length);
        if length.is_zero() || self.helped > 0 || is_near {
            return Ok(Look::Skipped);
        }
        let (began, mut next_look) = (Instant::now(), LOOK_AFTER);
        let (found, time) = loop {
            self.look_at_members();
            let found = self.is_busy() || self.bell.is_rung();
            let time = began.elapsed();
            if found || time >= length {
                break (found, time);
            }
            if time >= next_look {
                self.look(Some(Duration::ZERO))?;
                next_look = time.saturating_add(LOOK_AFTER);
            }
            std::hint::spin_loop();
        };
        self.bell.polling.count(time, found);
        let Some(window) = self.windows.get_mut(situation) else { return Ok(Look::Skipped) };
        if found {
            window.found_after(time, &self.bell.polling);
            return Ok(Look::Found);
        }
        window.found_nothing();
        Ok(Look::Vain)
    }

    /// Has all members rung for what comes; says whether something is there already.
    fn rest(&mut self) -> bool {
        while let Some(slot) = self.awake.pop_front() {
            self.rest_one(slot);
        }
        self.is_busy()
    }

    fn rest_one(&mut self, slot: usize) {
        let Some(member) = self.members.get_mut(slot).and_then(Option::as_mut) else { return };
        member.awake = false;
        if member.participant.rest() {
            self.enqueue(slot);
        }
    }

    /// Takes what the kernel has, and waits for it for at most `limit`.
    fn look(&mut self, limit: Option<Duration>) -> Result<()> {
        let mut ready = mem::take(&mut self.ready);
        let waited = self.epoll.wait(limit, &mut ready);
        for event in ready.drain(..) {
            self.take_event(event);
        }
        self.ready = ready;
        waited
    }

    fn until_next_moment(&mut self) -> Option<Duration> {
        let ring = self.ring.made().and_then(FileRing::next_moment);
        self.until_next_deadline().into_iter().chain(ring).min()
    }

    fn until_next_deadline(&self) -> Option<Duration> {
        let earliest = self.timed.iter().filter_map(|slot| self.deadline(*slot)).map(|(at, _)| at).min()?;
        Some(earliest.saturating_duration_since(Instant::now()))
    }
}
