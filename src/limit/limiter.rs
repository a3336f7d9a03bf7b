//! One device, or one direction of a card: what its present request still has to pay.

use std::time::Instant;

use super::cost::Cost;
use super::group::{LimitGroup, Member};
use crate::event::Waker;

/// The most that is paid at once while others of a group wait, too.
const PART: Cost = Cost { operations: 1, bytes: 64 << 10 };

/// As much is taken ahead for what else comes in a turn, so that not each request takes a lock.
const AHEAD: Cost = Cost { operations: 64, bytes: 256 << 10 };

/// Has requests pay before they are done, or frames once they are there, by the limits of the device and of its group.
pub(crate) struct Limiter {
    own: Member,
    shared: Option<Member>,
    due: Cost,
    /// What the request has paid.
    paid: Cost,
    /// What was taken ahead, for the turn that began then alone.
    ahead: Cost,
    ahead_at: Instant,
    /// Nothing is to be had before.
    until: Option<Instant>,
    /// When it began to wait.
    since: Option<Instant>,
    waker: Option<Waker>,
}

impl Limiter {
    /// `own` are the device's own limits, and count how it waits; `shared` are those of the group that it is in.
    pub(crate) fn new(own: &LimitGroup, shared: Option<&LimitGroup>) -> Self {
        Self {
            own: own.join(),
            shared: shared.map(LimitGroup::join),
            due: Cost::default(),
            paid: Cost::default(),
            ahead: Cost::default(),
            ahead_at: Instant::now(),
            until: None,
            since: None,
            waker: None,
        }
    }

    /// Woken if it need not wait as long as it was told.
    pub(crate) fn set_waker(&mut self, waker: Waker) {
        self.waker = Some(waker);
    }

    /// Whether there are any limits at present. Each request is asked this, so it takes no lock.
    pub(crate) fn is_limited(&self) -> bool {
        self.own.group().is_limited() || self.shared.as_ref().is_some_and(|shared| shared.group().is_limited())
    }

    /// A request has to pay this, if anything is limited.
    pub(crate) fn owe(&mut self, cost: Cost) {
        if cost.fits(self.ahead) {
            self.ahead = self.ahead.minus(cost);
            self.paid = cost;
        } else if self.is_limited() {
            self.due = self.due.plus(cost);
            self.paid = Cost::default();
        }
    }

    /// Pays what is due, as far as that is possible; says whether nothing is due any more.
    pub(crate) fn settle(&mut self, now: Instant) -> bool {
        if self.due.is_zero() && (self.ahead.is_zero() || self.ahead_at == now) {
            return true;
        }
        self.settle_due(now)
    }

    fn settle_due(&mut self, now: Instant) -> bool {
        if self.until.is_some_and(|until| now < until) {
            return false;
        }
        self.until = None;
        self.put_ahead_back();
        while !self.due.is_zero() {
            match self.pay(now) {
                Ok(paid) => {
                    self.due = self.due.minus(paid);
                    self.paid = self.paid.plus(paid);
                    if !self.due.is_zero() {
                        self.put_ahead_back();
                    }
                }
                Err(until) => {
                    self.until = Some(until);
                    if self.since.is_none() {
                        self.since = Some(now);
                        self.own.group().count_wait();
                    }
                    return false;
                }
            }
        }
        self.end_wait(now);
        true
    }

    /// Until when it waits.
    pub(crate) fn until(&self) -> Option<Instant> {
        self.until
    }

    /// The time until which it waits has passed, or the limits are others: it asks again.
    pub(crate) fn look_again(&mut self, now: Instant, are_others: bool) {
        if are_others || self.until.is_some_and(|until| until <= now) {
            self.until = None;
        }
    }

    /// The request is not done after all: what it has paid goes back.
    pub(crate) fn cancel(&mut self) {
        self.due = Cost::default();
        let paid = std::mem::take(&mut self.paid);
        self.put_ahead_back();
        self.own.put_back(paid);
        self.shared.iter().for_each(|shared| shared.put_back(paid));
        self.rest();
    }

    /// Asks for nothing until it is told to settle again.
    pub(crate) fn rest(&mut self) {
        self.put_ahead_back();
        self.own.leave();
        self.shared.iter_mut().for_each(Member::leave);
        self.until = None;
        if self.since.is_some() {
            self.end_wait(Instant::now());
        }
    }

    /// Pays for what is done already, as [`settle`](Self::settle) does.
    pub(crate) fn settle_past(&mut self, now: Instant) -> bool {
        let is_settled = self.settle(now);
        self.done();
        is_settled
    }

    /// The request is done, and keeps what it has paid.
    pub(crate) fn done(&mut self) {
        self.paid = Cost::default();
    }

    fn put_ahead_back(&mut self) {
        let ahead = std::mem::take(&mut self.ahead);
        self.own.put_back(ahead);
    }

    fn end_wait(&mut self, now: Instant) {
        if let Some(since) = self.since.take() {
            self.own.group().count_waited(now.saturating_duration_since(since));
        }
    }

    /// Pays a part, to both or to none.
    ///
    /// # Errors
    /// When to try again.
    fn pay(&mut self, now: Instant) -> Result<Cost, Instant> {
        // Always in this order, since both are locked.
        let mut own = self.own.ask();
        let Some(shared) = &mut self.shared else {
            let least = own.cap(self.due.min(PART));
            let offer = own.offer(now, least, self.waker.as_ref())?;
            let paid = offer.min(self.due);
            // Nobody else is kept from anything.
            let ahead = if own.is_alone() { offer.minus(paid).min(AHEAD) } else { Cost::default() };
            own.take(paid.plus(ahead));
            (self.ahead, self.ahead_at) = (ahead, now);
            return Ok(paid);
        };
        let mut theirs = shared.ask();
        let least = theirs.cap(own.cap(self.due.min(PART)));
        // One waits in one line at a time.
        let offer = own.offer(now, least, self.waker.as_ref()).inspect_err(|_| theirs.leave())?;
        let offer = offer.min(theirs.offer(now, least, self.waker.as_ref()).inspect_err(|_| own.leave())?);
        let paid = offer.min(self.due);
        own.take(paid);
        theirs.take(paid);
        Ok(paid)
    }
}

impl Drop for Limiter {
    fn drop(&mut self) {
        self.cancel();
    }
}

#[cfg(test)]
#[path = "limiter_test.rs"]
mod tests;
