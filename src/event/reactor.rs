//! The loop of an I/O thread: it waits, and gives whoever has something to do a turn, one after the other.

use std::collections::VecDeque;
use std::mem;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::time::Instant;

use super::io::{Io, Own, Turn};
use super::participant::Participant;
use super::place::{Bell, Place};
use super::polling::Window;
use super::ring::RingSlot;
use super::token::{Cause, Event, Token};
use super::wake_set::WakeSet;
use super::wants::{Change, Wants};
use crate::error::{Error, ErrorKind, Result};
use crate::memory::{BufferPool, FileRing};
use crate::sys::{Epoll, Ready, Watch, catch_panic};

/// What the buffers that a thread lends take together at most.
const POOL_BYTES: usize = 8 << 20;

/// How the kernel names the bell; no member has this key.
const BELL: u64 = u64::MAX;
/// And the ring.
const RING: u64 = u64::MAX - 1;

pub(super) struct Reactor {
    pub(super) epoll: Epoll,
    pub(super) bell: Arc<Bell>,
    pub(super) members: Vec<Option<Member>>,
    free: Vec<usize>,
    /// Slots of members that have a turn to come, each once.
    pub(super) queue: VecDeque<usize>,
    /// Slots of members that wait for a moment.
    pub(super) timed: Vec<usize>,
    pub(super) ready: Vec<Ready>,
    pool: BufferPool,
    next_key: u32,
    pub(super) rounds_without_look: u8,
    /// Slots of members that are looked at, rather than rung for. Each had a turn since it rested.
    pub(super) awake: VecDeque<usize>,
    /// How long to look for something to do, and how long if the kernel's storage has something to do for us.
    pub(super) windows: [Window; 2],
    /// Members for which another thread works.
    pub(super) helped: usize,
    /// Dropped after the members, so that it can finish what they leave in flight.
    pub(super) ring: RingSlot,
}

pub(super) struct Member {
    pub(super) participant: Box<dyn Participant>,
    place: Arc<Place>,
    own: Own,
    pub(super) wants: Wants,
    events: Vec<Event>,
    queued: bool,
    pub(super) awake: bool,
    helped: bool,
}

/// A participant that was taken off its thread, with the descriptors that it wanted. What a user gave may panic while it is
/// dropped, which is nothing to the thread that drops it.
pub(super) struct Removed(Option<Member>);

/// Why a participant was not taken, and the participant.
pub(super) struct Refused {
    pub(super) error: Error,
    _participant: Removed,
}

impl Drop for Removed {
    fn drop(&mut self) {
        let Some(Member { participant, wants, .. }) = self.0.take() else { return };
        contain(|| drop(participant));
        wants.descriptors.into_iter().for_each(|descriptor| _ = contain(|| drop(descriptor)));
    }
}

/// Calls code of a user's, whose panic must not reach the other participants; `None` if it panicked.
pub(super) fn contain<R>(call: impl FnOnce() -> R) -> Option<R> {
    catch_panic(call).ok()
}

impl Reactor {
    pub(super) fn new(bell: Arc<Bell>) -> Result<Self> {
        let epoll = Epoll::new()?;
        epoll.add(bell.event.as_fd().as_raw_fd(), Watch::READABLE, BELL)?;
        Ok(Self {
            epoll,
            ring: RingSlot::new(Arc::clone(&bell)),
            bell,
            members: Vec::new(),
            free: Vec::new(),
            queue: VecDeque::new(),
            timed: Vec::new(),
            ready: Vec::new(),
            pool: BufferPool::new(POOL_BYTES),
            next_key: 0,
            rounds_without_look: 0,
            awake: VecDeque::new(),
            windows: <[Window; 2]>::default(),
            helped: 0,
        })
    }

    /// For a reactor that has no thread of its own.
    #[cfg(any(test, feature = "test-util"))]
    pub(super) fn without_ring(mut self) -> Self {
        self.ring = RingSlot::refused(Arc::clone(&self.bell), "there is no thread that it could belong to");
        self
    }

    /// Takes a participant in, and gives it its first turn soon.
    ///
    /// # Errors
    /// Why it is not taken, and the participant, for whoever gave it to drop.
    pub(super) fn add(
        &mut self,
        participant: Box<dyn Participant>,
        place: Arc<Place>,
    ) -> std::result::Result<(), Box<Refused>> {
        let own = Own::new(Arc::clone(&place));
        let mut member = Member {
            participant,
            place,
            own,
            wants: Wants::default(),
            events: Vec::new(),
            queued: false,
            awake: false,
            helped: false,
        };
        if let Err(error) = self.attach(&mut member) {
            return Err(Box::new(Refused { error, _participant: Removed(Some(member)) }));
        }
        let slot = self.free.pop().unwrap_or_else(|| {
            let slot = self.members.len();
            self.members.push(None);
            slot
        });
        member.place.settle(slot);
        if let Some(place) = self.members.get_mut(slot) {
            *place = Some(member);
        }
        self.enqueue(slot);
        Ok(())
    }

    fn attach(&mut self, member: &mut Member) -> Result<()> {
        if self.free.is_empty() && self.members.len() >= WakeSet::CAPACITY {
            let message = format!("an I/O thread serves at most {} devices and consoles", WakeSet::CAPACITY);
            return Err(Error::new(ErrorKind::InvalidState, message));
        }
        let attached = contain(|| {
            let mut io = Io { own: &mut member.own, pool: &self.pool, ring: &mut self.ring, turn: Turn::begin() };
            member.participant.attach(&mut io)
        });
        attached.unwrap_or_else(|| Err(Error::new(ErrorKind::Host, "a device or its backend panicked")))
    }

    /// Takes a participant off the thread.
    pub(super) fn remove(&mut self, place: &Place) -> Option<Removed> {
        let slot = place.slot()?;
        place.leave();
        let member = self.members.get_mut(slot).and_then(Option::take)?;
        for descriptor in &member.wants.descriptors {
            // Open still, since its source is, and watched, unless the host program closed it behind our back.
            let _ = self.epoll.delete(descriptor.fd);
        }
        self.helped = self.helped.saturating_sub(usize::from(member.helped));
        self.timed.retain(|timed| *timed != slot);
        self.queue.retain(|queued| *queued != slot);
        self.awake.retain(|awake| *awake != slot);
        self.free.push(slot);
        Some(Removed(Some(member)))
    }

    /// Waits until there is something to do, and does one round of it; says how many turns that were.
    pub(super) fn round(&mut self) -> Result<usize> {
        self.wait()?;
        if let Some(ring) = self.ring.made() {
            ring.reap();
        }
        let bell = Arc::clone(&self.bell);
        bell.woken.drain(|slot| self.enqueue(slot));
        self.enqueue_due();
        let turns = self.queue.len();
        for _ in 0..turns {
            if let Some(slot) = self.queue.pop_front() {
                self.turn(slot);
            }
        }
        self.submit()?;
        Ok(turns)
    }

    /// Begins what the turns have left to the ring.
    fn submit(&mut self) -> Result<()> {
        if let Some(fd) = self.ring.take_unwatched() {
            self.epoll.add(fd, Watch::READABLE, RING)?;
        }
        if let Some(ring) = self.ring.made() {
            ring.submit();
        }
        Ok(())
    }

    pub(super) fn take_event(&mut self, ready: Ready) {
        match ready.key {
            BELL => {
                self.bell.event.take();
                return;
            }
            // Whatever it is that the ring has, it is looked for in each round.
            RING => return,
            _ => {}
        }
        #[expect(clippy::cast_possible_truncation, reason = "these are the two halves")]
        let (slot, key) = ((ready.key >> 32) as usize, ready.key as u32);
        let Some(member) = self.members.get_mut(slot).and_then(Option::as_mut) else { return };
        // An event may be older than the removal of its descriptor; keys are not used again soon.
        let Some(descriptor) = member.wants.descriptors.iter().find(|known| known.key == key) else { return };
        let Ready { readable, writable, hang_up, .. } = ready;
        member.events.push(Event::new(descriptor.token, Cause::Ready { readable, writable, hang_up }));
        self.enqueue(slot);
    }

    pub(super) fn enqueue(&mut self, slot: usize) {
        if let Some(member) = self.members.get_mut(slot).and_then(Option::as_mut)
            && !mem::replace(&mut member.queued, true)
        {
            self.queue.push_back(slot);
        }
    }

    pub(super) fn deadline(&self, slot: usize) -> Option<(Instant, Token)> {
        self.members.get(slot)?.as_ref()?.wants.deadline
    }

    fn enqueue_due(&mut self) {
        if self.timed.is_empty() {
            return;
        }
        let now = Instant::now();
        for position in 0..self.timed.len() {
            let Some(slot) = self.timed.get(position).copied() else { return };
            let Some(member) = self.members.get_mut(slot).and_then(Option::as_mut) else { continue };
            if let Some((_, token)) = member.wants.deadline.filter(|(at, _)| *at <= now) {
                member.wants.deadline = None;
                member.events.push(Event::new(token, Cause::Deadline));
                self.enqueue(slot);
            }
        }
    }

    fn turn(&mut self, slot: usize) {
        let Some(member) = self.members.get_mut(slot).and_then(Option::as_mut) else { return };
        member.queued = false;
        if !mem::replace(&mut member.awake, true) {
            self.awake.push_back(slot);
        }
        if member.place.is_removed() {
            return;
        }
        member.own.collect_wakes(&mut member.events);
        let done = self.bell.meter.measure(|| {
            contain(|| {
                let mut io = Io { own: &mut member.own, pool: &self.pool, ring: &mut self.ring, turn: Turn::begin() };
                member.participant.turn(&mut io, &member.events);
                member.wants.begin();
                member.participant.wants(&mut member.wants);
            })
        });
        member.events.clear();
        let was_helped = mem::replace(&mut member.helped, member.wants.lets_work);
        self.helped = self.helped.saturating_sub(usize::from(was_helped)).saturating_add(usize::from(member.helped));
        let place = Arc::clone(&member.place);
        let again = member.wants.again;
        // Letting go of a descriptor is its owner's code, too.
        let applied = done.and_then(|()| contain(|| self.apply(slot)));
        let goes_on = match applied {
            Some(Ok(())) => Some(again),
            Some(Err(_)) => self.tell_refused(slot),
            None => None,
        };
        match goes_on {
            Some(true) => self.enqueue(slot),
            Some(false) => {}
            None => {
                place.remove();
                drop(self.remove(&place));
            }
        }
    }

    /// Tells a member that the kernel does not watch what it wants. It has another turn, in which to want something else, if
    /// it can do without.
    fn tell_refused(&mut self, slot: usize) -> Option<bool> {
        let member = self.members.get_mut(slot).and_then(Option::as_mut)?;
        let told = contain(|| {
            let mut io = Io { own: &mut member.own, pool: &self.pool, ring: &mut self.ring, turn: Turn::begin() };
            member.participant.refused(&mut io)
        });
        told.filter(|goes_on| *goes_on)
    }

    /// Has the kernel watch what a member wants. What it refuses is forgotten, so that it is asked anew if it is wanted again.
    fn apply(&mut self, slot: usize) -> Result<()> {
        let Some(member) = self.members.get_mut(slot).and_then(Option::as_mut) else { return Ok(()) };
        let mut result = Ok(());
        // Removals first: a descriptor that comes back under another token is watched once at a time.
        member.wants.descriptors.retain(|descriptor| {
            let stays = descriptor.change != Change::Remove;
            if !stays {
                let _ = self.epoll.delete(descriptor.fd);
            }
            stays
        });
        member.wants.descriptors.retain_mut(|descriptor| {
            let key = |key: u32| (slot as u64) << 32 | u64::from(key);
            let applied = match descriptor.change {
                Change::Add => {
                    descriptor.key = self.next_key;
                    self.next_key = self.next_key.wrapping_add(1);
                    self.epoll.add(descriptor.fd, descriptor.watch, key(descriptor.key))
                }
                Change::Modify => self.epoll.modify(descriptor.fd, descriptor.watch, key(descriptor.key)),
                Change::Keep | Change::Remove => Ok(()),
            };
            descriptor.change = Change::Keep;
            let watched = applied.is_ok();
            if let Err(error) = applied {
                result = Err(error);
            }
            watched
        });
        match (member.wants.deadline, self.timed.iter().position(|timed| *timed == slot)) {
            (Some(_), None) => self.timed.push(slot),
            (None, Some(position)) => _ = self.timed.swap_remove(position),
            (Some(_), Some(_)) | (None, None) => {}
        }
        result
    }

    /// Drops all members, and waits for a moment until the kernel is done with what they leave in flight; says whether it is.
    pub(super) fn end(&mut self) -> bool {
        self.members.drain(..).for_each(|member| drop(Removed(member)));
        self.ring.made().is_none_or(FileRing::settle)
    }

    /// Waits until the kernel is done, however long that takes.
    pub(super) fn outlast_ring(&mut self) {
        if let Some(ring) = self.ring.made() {
            ring.outlast();
        }
    }
}

impl Drop for Reactor {
    fn drop(&mut self) {
        self.end();
    }
}
