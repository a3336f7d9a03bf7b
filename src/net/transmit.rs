//! From the guest to the backend.

use std::io;
use std::os::fd::AsFd;

use super::header::{HEADER_LEN, VnetHeader};
use super::metrics::{FrameCounts, NicCounters};
use super::offloads::Offloads;
use crate::error::Result;
use crate::event::Io;
use crate::limit::{Cost, Limiter};
use crate::memory::{GuestRanges, RangeList};
use crate::virtio::{Chain, Queue};

/// The sending half of a running device.
pub(super) struct Transmitter {
    /// What the guest may leave undone.
    offloads: Offloads,
    /// The frame that is next, if it has a chain; at most this one was taken and not sent. Without one, it is storage with a
    /// lease for the next frame.
    frame: Option<TxFrame>,
    counts: FrameCounts,
    /// Why the queue cannot be trusted any more, until that is told.
    failed: Option<crate::Error>,
    limiter: Limiter,
}

/// A frame that the guest sends.
pub struct TxFrame {
    header: VnetHeader,
    data: GuestRanges,
    chain: Option<Chain>,
}

impl TxFrame {
    /// Returns the header, which says what the guest has left undone. It was checked, and is a copy that the guest cannot
    /// change.
    pub fn header(&self) -> &VnetHeader {
        &self.header
    }

    /// Returns the frame's length in bytes, without the header.
    pub fn len(&self) -> u64 {
        self.data.len()
    }

    /// Always false: a frame has at least an Ethernet header.
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    /// Returns the frame's bytes, which the guest may still change.
    pub fn data(&self) -> &GuestRanges {
        &self.data
    }

    /// Writes the frame to a descriptor as one packet, with its header of 12 bytes in front, straight from the guest's memory.
    ///
    /// # Errors
    /// What the host reports; `WouldBlock` if the descriptor cannot take the packet now.
    pub fn send_to(&self, device: impl AsFd) -> io::Result<()> {
        self.data.send_to(device, &self.header.to_bytes()).map(drop)
    }
}

impl std::fmt::Debug for TxFrame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TxFrame").field("header", &self.header).field("len", &self.len()).finish_non_exhaustive()
    }
}

/// Gives the guest's frames in order. It is lent to a backend for one call of [`send`](super::NicBackend::send).
pub struct TxBatch<'a> {
    transmitter: &'a mut Transmitter,
    queue: &'a mut Queue,
    /// Takes frames out.
    sieve: Option<&'a mut dyn Sieve>,
}

/// Says of each frame whether it is taken out.
trait Sieve {
    fn takes(&mut self, io: &mut Io, frame: &TxFrame) -> bool;
}

/// A layer's way to take frames out, behind those of the layers above.
struct Nested<'a, F> {
    above: Option<&'a mut dyn Sieve>,
    takes: F,
}

impl<F: FnMut(&mut Io, &TxFrame) -> bool> Sieve for Nested<'_, F> {
    fn takes(&mut self, io: &mut Io, frame: &TxFrame) -> bool {
        self.above.as_mut().is_some_and(|above| above.takes(io, frame)) || (self.takes)(io, frame)
    }
}

impl<'a> TxBatch<'a> {
    pub(super) fn new(transmitter: &'a mut Transmitter, queue: &'a mut Queue) -> Self {
        Self { transmitter, queue, sieve: None }
    }

    /// Returns the next frame, which stays the same one until it is [done](Self::done); `None` if there is none, if the turn is
    /// over, or if the frame waits for the card's limits.
    pub fn next(&mut self, io: &mut Io) -> Option<&TxFrame> {
        loop {
            if let Err(error) = self.transmitter.take(io, self.queue) {
                self.transmitter.failed = Some(error);
                return None;
            }
            if !self.transmitter.may_send(io) {
                return None;
            }
            let frame = self.transmitter.waiting()?;
            if !self.sieve.as_mut().is_some_and(|sieve| sieve.takes(io, frame)) {
                break;
            }
            self.done();
        }
        self.transmitter.waiting()
    }

    /// Lends the batch on without the frames that `takes` wants: a layer takes those for itself, and gives the others to the
    /// backend below as they come, in order. `takes` says whether a frame is taken, which is then [done](Self::done). It may be asked
    /// more than once about a frame that it has not taken.
    ///
    /// ```
    /// use vmcell::event::Io;
    /// use vmcell::net::{NicBackend, TxBatch};
    ///
    /// /// Drops frames that are longer than a packet of the network may be.
    /// fn send_short_ones(below: &mut dyn NicBackend, io: &mut Io, frames: &mut TxBatch) {
    ///     frames.without(|_, frame| frame.len() > 1514, |frames| below.send(io, frames));
    /// }
    /// ```
    pub fn without(&mut self, takes: impl FnMut(&mut Io, &TxFrame) -> bool, rest: impl FnOnce(&mut TxBatch<'_>)) {
        let above = self.sieve.as_mut().map(|sieve| &mut **sieve as &mut dyn Sieve);
        let mut sieve = Nested { above, takes };
        rest(&mut TxBatch { transmitter: self.transmitter, queue: self.queue, sieve: Some(&mut sieve) });
    }

    /// Says that the next frame was sent, or is to be dropped: the guest gets its buffer back.
    pub fn done(&mut self) {
        self.transmitter.give_back(self.queue);
    }

    /// Counts what was sent; says why the queue cannot be trusted any more, if so.
    pub(super) fn finish(self, counters: &NicCounters) -> Result<()> {
        self.transmitter.counts.publish(&counters.sent);
        self.transmitter.failed.take().map_or(Ok(()), Err)
    }
}

impl Transmitter {
    pub(super) fn new(offloads: Offloads, limiter: Limiter) -> Self {
        Self { offloads, frame: None, counts: FrameCounts::default(), failed: None, limiter }
    }

    /// The frame that was taken and waits.
    fn waiting(&self) -> Option<&TxFrame> {
        self.frame.as_ref().filter(|frame| frame.chain.is_some())
    }

    /// Whether a frame was taken and waits for its backend, rather than for limits.
    pub(super) fn has_sendable(&self) -> bool {
        self.has_backlog() && self.limiter.until().is_none()
    }

    /// Whether a frame was taken and waits.
    fn has_backlog(&self) -> bool {
        self.waiting().is_some()
    }

    /// Whether the limits allow what was taken.
    pub(super) fn may_send(&mut self, io: &Io) -> bool {
        self.limiter.settle(io.now())
    }

    pub(super) fn limiter(&self) -> &Limiter {
        &self.limiter
    }

    pub(super) fn look_again(&mut self, io: &Io, are_others: bool) {
        self.limiter.look_again(io.now(), are_others);
    }

    /// Takes the next frame that may be sent.
    fn take(&mut self, io: &mut Io, queue: &mut Queue) -> Result<()> {
        while !self.has_backlog() {
            let Some(chain) = queue.pop(io)? else { return Ok(()) };
            let frame = self.frame.get_or_insert_with(|| TxFrame::blank(queue));
            if frame.parse(&chain, self.offloads) {
                io.charge(frame.len());
                self.limiter.owe(Cost::new(1, frame.len()));
                frame.chain = Some(chain);
            } else {
                // A frame that must not be sent is lost, as on any wire.
                self.counts.drop_one();
                queue.complete_later(chain, 0);
            }
        }
        Ok(())
    }

    fn give_back(&mut self, queue: &mut Queue) {
        // A backend that has not seen the frame cannot have sent it.
        if self.limiter.until().is_some() {
            return;
        }
        self.limiter.done();
        if let Some(frame) = &mut self.frame
            && let Some(chain) = frame.chain.take()
        {
            self.counts.frame(frame.len());
            queue.complete_later(chain, 0);
        }
    }

    /// Drops what the guest sends, since there is no link.
    pub(super) fn discard(&mut self, io: &mut Io, queue: &mut Queue, counters: &NicCounters) -> Result<()> {
        let discarded = loop {
            if let Err(error) = self.take(io, queue) {
                break Err(error);
            }
            let Some(chain) = self.frame.as_mut().and_then(|frame| frame.chain.take()) else { break Ok(()) };
            self.limiter.cancel();
            self.counts.drop_one();
            queue.complete_later(chain, 0);
        };
        self.counts.publish(&counters.sent);
        discarded
    }

    /// Puts the frame back that was not sent, and ends all leases.
    pub(super) fn put_back(&mut self, queue: &mut Queue) -> Result<()> {
        self.limiter.cancel();
        self.frame.take().and_then(|frame| frame.chain).map_or(Ok(()), |chain| queue.put_back(chain))
    }
}

impl TxFrame {
    /// Without a chain.
    fn blank(queue: &Queue) -> Self {
        let data = GuestRanges::new(RangeList::default(), queue.lessor().lease());
        Self { header: VnetHeader::default(), data, chain: None }
    }

    /// Becomes the frame in `chain`; says whether it may be sent.
    fn parse(&mut self, chain: &Chain, offloads: Offloads) -> bool {
        let Some(len) = chain.readable_len().checked_sub(HEADER_LEN) else { return false };
        self.data.clear();
        let segments = chain.readable().iter().map(|segment| (segment.gpa, segment.len));
        // The host gets our copy of the header: the guest may change its own after the check.
        let mut bytes = [0; VnetHeader::LEN];
        if self.data.extend(segments).is_err() || !self.data.take_front(&mut bytes) {
            return false;
        }
        let header = VnetHeader::parse(bytes, len, offloads);
        self.header = header.unwrap_or_default();
        header.is_some()
    }
}
