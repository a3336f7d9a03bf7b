//! Both directions of a card, and the limits that they keep to.
//!
//! Frames that the guest sends pay before they go, those that it gets once they are there: nobody knows how long the next one is. What
//! has yet to come stays where it is, in the TAP device for instance, whose queue is bounded and drops what it has no room for.

use super::Net;
use crate::event::{Io, Wants};
use crate::limit::Limiter;

impl Net {
    /// For one of the queues that send.
    pub(super) fn send_limiter(&self, io: &mut Io) -> Limiter {
        let mut limiter = Limiter::new(self.handle.send_limits(), self.send_group.as_ref());
        if let Some(token) = self.limit_token {
            limiter.set_waker(io.waker(token));
        }
        limiter
    }

    pub(super) fn want_deadlines(&self, wants: &mut Wants) {
        let (Some(token), Some(running)) = (self.limit_token, &self.running) else { return };
        let sending = running.pairs.iter().filter_map(|pair| pair.transmitter.limiter().until());
        if let Some(until) = sending.chain(self.receive_limiter.until()).min() {
            wants.deadline(token, until);
        }
    }

    pub(super) fn look_at_limits(&mut self, io: &Io, are_others: bool) {
        self.receive_limiter.look_again(io.now(), are_others);
        let pairs = self.running.iter_mut().flat_map(|running| &mut running.pairs);
        pairs.for_each(|pair| pair.transmitter.look_again(io, are_others));
    }
}
