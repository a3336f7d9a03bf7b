//! From the backend to the guest: the choice of buffers for each frame.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd;

use super::header::{ETHERNET_LEN, HEADER_LEN, MAX_PACKET, NUM_BUFFERS_OFFSET, VnetHeader};
use super::lend::RxBuffer;
use super::metrics::{FrameCounts, NicCounters};
use super::offloads::Offloads;
use crate::error::Result;
use crate::event::Io;
use crate::limit::{Cost, Limiter};
use crate::memory::{GuestRanges, RangeList};
use crate::virtio::{Chain, Queue};

/// The most contiguous parts that buffers for a frame may have together: as many as the kernel takes at once, less some.
const MAX_PARTS: usize = 1000;

/// So many chains are taken at once if each frame goes to one: what the guest's CPU wrote comes sooner if it is asked for together.
const AHEAD: usize = 16;

/// To hand over a frame that is there already takes about as long as copying so many bytes.
const DELIVERY_CHARGE: u64 = 512;

/// The receiving half of a running device.
pub(super) struct Receiver {
    /// A frame may be spread over several chains.
    mergeable: bool,
    /// What the guest copes with.
    offloads: Offloads,
    /// Chains that were taken but not filled yet, in the order in which they came. Nobody knows how long the next frame is
    /// before it is there.
    buffers: VecDeque<Buffer>,
    /// Where their writable bytes lie.
    room: Option<GuestRanges>,
    spare: RangeList,
    filled: Vec<(Chain, u32)>,
    /// Storage for what is lent.
    lists: Vec<RangeList>,
    counts: FrameCounts,
}

struct Buffer {
    chain: Chain,
    /// How many parts of the room it has; none if it is not fit for frames, and just waits for its turn to be given back.
    parts: usize,
}

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Delivery {
    /// The guest has the frame.
    Delivered,
    /// The frame is lost: it was too long for the guest's buffers, too short for a frame, or left undone what the guest does
    /// not cope with.
    Dropped,
    /// The frame was not taken: the guest has no buffer now, the turn is over, or the card's limits allow none yet. Keep it or drop it.
    NoRoom,
}

/// Takes frames for the guest. It is lent to a backend for one call of [`receive`](super::NicBackend::receive).
pub struct RxBatch<'a> {
    receiver: &'a mut Receiver,
    queue: &'a mut Queue,
    limiter: &'a mut Limiter,
    failed: Option<crate::Error>,
}

impl<'a> RxBatch<'a> {
    pub(super) fn new(receiver: &'a mut Receiver, queue: &'a mut Queue, limiter: &'a mut Limiter) -> Self {
        Self { receiver, queue, limiter, failed: None }
    }

    /// Whether the guest has a buffer now, the turn is not over, and the card's limits allow a frame. Ask this before you take a frame from where it waits.
    pub fn has_room(&mut self, io: &mut Io) -> bool {
        if !self.limiter.settle_past(io.now()) {
            return false;
        }
        if let Err(error) = self.receiver.gather(io, self.queue) {
            self.failed = Some(error);
        }
        // If the turn ended before enough buffers were taken, a frame would be cut for no reason of the guest's.
        let cut_short = io.spent() && !self.receiver.has_enough();
        self.failed.is_none() && self.receiver.has_room() && !cut_short
    }

    /// Copies a frame to the guest, with a header in front. `VnetHeader::default()` is the header of a complete frame.
    pub fn put(&mut self, io: &mut Io, header: &VnetHeader, frame: &[u8]) -> Delivery {
        if !self.has_room(io) {
            return Delivery::NoRoom;
        }
        io.charge(frame.len() as u64);
        self.limiter.owe(Cost::new(1, frame.len() as u64));
        let len = u32::try_from(frame.len()).unwrap_or(u32::MAX);
        if !header.suits(len, self.receiver.offloads) {
            return self.receiver.lose();
        }
        self.receiver.put(self.queue, header, frame)
    }

    /// Reads one packet from a descriptor straight into the guest's memory. Like a TAP device, the descriptor must give each
    /// packet with a header of 12 bytes in front, and that header is not checked.
    ///
    /// # Errors
    /// What the host reports; `WouldBlock` if there is no packet.
    pub fn receive_from(&mut self, io: &mut Io, device: impl AsFd) -> io::Result<Delivery> {
        if !self.has_room(io) {
            return Ok(Delivery::NoRoom);
        }
        let (delivery, len) = self.receiver.receive_from(io, self.queue, device)?;
        self.limiter.owe(Cost::new(1, len));
        Ok(delivery)
    }

    /// Lends the guest's next buffer, for a frame that is not there yet: any thread may [fill](RxBuffer::data) it, so that a frame of
    /// another guest goes from memory to memory by one copy, on its sender's turn. `None` if there is no [room](Self::has_room).
    ///
    /// The buffer comes back to this card, filled by [`deliver`](Self::deliver) or not by [`recall`](super::NicBackend::recall). If it
    /// is dropped instead, on whatever thread, the guest gets it back without a frame. While it is out, the guest's memory stays mapped,
    /// and a pause or a reset of the card waits.
    pub fn lend(&mut self, io: &mut Io) -> Option<RxBuffer> {
        if self.has_room(io) { self.receiver.lend(self.queue) } else { None }
    }

    /// Whether the turn is not over, and the card's limits allow one more frame to be [delivered](Self::deliver).
    pub fn may_deliver(&mut self, io: &mut Io) -> bool {
        !io.spent() && self.limiter.settle_past(io.now())
    }

    /// Gives the guest a frame of `len` bytes that was put into buffers that this card has lent, all of which are given back: several if
    /// the guest [allows that](RxBuffer::is_mergeable), otherwise one. The frame's bytes begin behind room for its header, which is
    /// written now. What is too long for the buffers, or leaves undone what the guest does not cope with, is dropped, and so is a frame
    /// in buffers that were lent before the guest's last reset.
    pub fn deliver(
        &mut self,
        io: &mut Io,
        header: &VnetHeader,
        len: u64,
        buffers: impl IntoIterator<Item = RxBuffer>,
    ) -> Delivery {
        io.charge(DELIVERY_CHARGE);
        self.limiter.owe(Cost::new(1, len));
        self.receiver.deliver_lent(self.queue, header, len, buffers)
    }

    /// Counts what came; says why the queue cannot be trusted any more, if so.
    pub(super) fn finish(self, counters: &NicCounters) -> Result<()> {
        self.receiver.counts.publish(&counters.received);
        self.failed.map_or(Ok(()), Err)
    }
}

impl Receiver {
    pub(super) fn new(mergeable: bool, offloads: Offloads) -> Self {
        Self {
            mergeable,
            offloads,
            buffers: VecDeque::new(),
            room: None,
            spare: RangeList::default(),
            filled: Vec::new(),
            lists: Vec::new(),
            counts: FrameCounts::default(),
        }
    }

    /// Takes chains until the largest frame fits, and some more while at it, or there are none.
    pub(super) fn gather(&mut self, io: &mut Io, queue: &mut Queue) -> Result<()> {
        if self.has_enough() {
            return Ok(());
        }
        while !self.has_enough() || !self.mergeable && self.buffers.len() < AHEAD {
            let Some(chain) = queue.pop(io)? else { break };
            self.take(queue, chain);
        }
        Ok(())
    }

    fn has_enough(&self) -> bool {
        let Some(room) = &self.room else { return false };
        if !self.mergeable {
            return !room.is_empty();
        }
        // As many parts as a chain can have more still fit.
        room.len() >= MAX_PACKET.into() || room.count() > MAX_PARTS / 2 || self.buffers.len() > MAX_PARTS
    }

    fn take(&mut self, queue: &mut Queue, mut chain: Chain) {
        let room =
            self.room.get_or_insert_with(|| GuestRanges::new(std::mem::take(&mut self.spare), queue.lessor().lease()));
        let least = if self.mergeable { HEADER_LEN } else { HEADER_LEN.saturating_add(ETHERNET_LEN) };
        let before = room.count();
        if chain.readable_len() == 0 && chain.writable_len() >= least {
            // Its segments were checked to be RAM when it was taken.
            let _ = room.extend(chain.writable().iter().map(|segment| (segment.gpa, segment.len)));
        }
        let parts = room.count().saturating_sub(before);
        if parts == 0 {
            // A whole queue of long chains that wait would take a mebibyte.
            chain.forget_buffers();
        }
        self.buffers.push_back(Buffer { chain, parts });
        self.give_back_unfit(queue);
    }

    /// Gives chains back that no frame can go to, when they have come to the front.
    fn give_back_unfit(&mut self, queue: &mut Queue) {
        while self.buffers.front().is_some_and(|buffer| buffer.parts == 0)
            && let Some(buffer) = self.buffers.pop_front()
        {
            queue.complete_later(buffer.chain, 0);
        }
    }

    /// Whether any frame at all fits.
    pub(super) fn has_room(&self) -> bool {
        self.room.as_ref().is_some_and(|room| room.len() >= HEADER_LEN.saturating_add(ETHERNET_LEN).into())
    }

    /// How many parts of the room one frame may go to.
    fn parts_for_one(&self, room: &GuestRanges) -> usize {
        if self.mergeable { room.count() } else { self.buffers.front().map_or(0, |buffer| buffer.parts) }
    }

    fn put(&mut self, queue: &mut Queue, header: &VnetHeader, frame: &[u8]) -> Delivery {
        let Some(room) = &self.room else { return Delivery::NoRoom };
        let len = (frame.len() as u64).saturating_add(HEADER_LEN.into());
        let fits = len <= room.len_of(self.parts_for_one(room));
        let copied = || room.copy_in(HEADER_LEN.into(), frame).and_then(|()| room.copy_in(0, &header.to_bytes()));
        if fits && copied().is_ok() { self.deliver(queue, len) } else { self.lose() }
    }

    /// What became of the next frame, and how long it was.
    fn receive_from(&mut self, io: &mut Io, queue: &mut Queue, device: impl AsFd) -> io::Result<(Delivery, u64)> {
        let no_room = Ok((Delivery::NoRoom, 0));
        let Some(parts) = self.room.as_ref().map(|room| self.parts_for_one(room)) else { return no_room };
        let Some(room) = &mut self.room else { return no_room };
        let received = room.receive_from(device, parts)?;
        io.charge(received.len);
        let whole = !received.truncated && received.len >= HEADER_LEN.saturating_add(ETHERNET_LEN).into();
        let delivery = if whole { self.deliver(queue, received.len) } else { self.lose() };
        Ok((delivery, received.len.saturating_sub(HEADER_LEN.into())))
    }

    fn lend(&mut self, queue: &mut Queue) -> Option<RxBuffer> {
        let room = self.room.as_mut()?;
        let buffer = self.buffers.pop_front()?;
        let data = room.take_parts(buffer.parts, self.lists.pop().unwrap_or_default());
        self.give_back_unfit(queue);
        Some(RxBuffer::new(buffer.chain, data, self.mergeable, self.offloads))
    }

    fn deliver_lent(
        &mut self,
        queue: &mut Queue,
        header: &VnetHeader,
        len: u64,
        buffers: impl IntoIterator<Item = RxBuffer>,
    ) -> Delivery {
        let suits = u32::try_from(len).is_ok_and(|len| header.suits(len, self.offloads));
        let mut rest = if suits { len.saturating_add(HEADER_LEN.into()) } else { 0 };
        let mut first = None;
        for buffer in buffers {
            let (chain, data) = buffer.into_parts();
            let written = rest.min(data.len());
            rest = rest.saturating_sub(written);
            self.filled.push((chain, u32::try_from(written).unwrap_or(u32::MAX)));
            match first {
                None => first = Some(data),
                Some(_) => self.lists.push(data.into_list()),
            }
        }
        let count = u16::try_from(self.filled.len()).unwrap_or(u16::MAX);
        let whole = suits && rest == 0 && (count == 1 || self.mergeable);
        let written = first.as_ref().filter(|_| whole).map(|data| data.copy_in(0, &header.with_count(count)));
        self.lists.extend(first.map(GuestRanges::into_list));
        if !matches!(written, Some(Ok(()))) {
            // The guest gets its buffers back as they were.
            self.filled.drain(..).for_each(|(chain, _)| queue.complete_later(chain, 0));
            return self.lose();
        }
        self.counts.frame(len);
        queue.complete_together(self.filled.drain(..));
        Delivery::Delivered
    }

    fn lose(&mut self) -> Delivery {
        self.counts.drop_one();
        Delivery::Dropped
    }

    /// Hands the buffers that hold `len` bytes to the driver, all at once (5.1.6.4).
    fn deliver(&mut self, queue: &mut Queue, len: u64) -> Delivery {
        self.counts.frame(len.saturating_sub(HEADER_LEN.into()));
        let len = u32::try_from(len).unwrap_or(u32::MAX);
        match self.buffers.pop_front() {
            Some(buffer) if buffer.parts > 0 && buffer.chain.writable_len() >= len => self.fill_one(queue, buffer, len),
            Some(buffer) => {
                self.buffers.push_front(buffer);
                self.fill_several(queue, len);
            }
            None => {}
        }
        self.give_back_unfit(queue);
        Delivery::Delivered
    }

    fn fill_one(&mut self, queue: &mut Queue, buffer: Buffer, len: u32) {
        self.tell_count(1, buffer.parts);
        queue.complete_later(buffer.chain, len);
    }

    fn fill_several(&mut self, queue: &mut Queue, len: u32) {
        let mut rest = len;
        let mut parts = 0usize;
        while rest > 0 {
            let Some(buffer) = self.buffers.pop_front() else { break };
            // What is unfit goes back at its place among the others.
            let fits = if buffer.parts > 0 { buffer.chain.writable_len() } else { 0 };
            let written = rest.min(fits);
            rest = rest.saturating_sub(written);
            parts = parts.saturating_add(buffer.parts);
            if written > 0 {
                self.filled.push((buffer.chain, written));
            } else {
                queue.complete_later(buffer.chain, 0);
            }
        }
        self.tell_count(u16::try_from(self.filled.len()).unwrap_or(u16::MAX), parts);
        queue.complete_together(self.filled.drain(..));
    }

    /// Writes into the frame's header how many buffers it is in, and takes their `parts` off the room.
    fn tell_count(&mut self, count: u16, parts: usize) {
        if let Some(room) = &mut self.room {
            // The first buffer has room for a whole header, or it would not have been taken.
            let _ = room.copy_in(NUM_BUFFERS_OFFSET.into(), &count.to_le_bytes());
            room.drop_front(parts);
        }
    }

    /// Puts all chains back that were not filled.
    pub(super) fn put_back(&mut self, queue: &mut Queue) -> Result<()> {
        if let Some(room) = self.room.take() {
            self.spare = room.into_list();
        }
        while let Some(buffer) = self.buffers.pop_back() {
            queue.put_back(buffer.chain)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::GuestAddress;
    use crate::testing::{Buffer, DriverQueue, IoRig, RecordingInterrupt, patterned_memory};

    #[test]
    fn chains_that_are_unfit_take_no_room_while_they_wait_and_go_back_as_they_came() {
        let memory = patterned_memory(8 << 20);
        let mut driver = DriverQueue::new(&memory, GuestAddress(0x1000), 256);
        let mut queue = Queue::new(&driver.config(), &memory, 0, true, RecordingInterrupt::new()).unwrap();
        let mut receiver = Receiver::new(true, Offloads::NONE);
        // What fits no frame, but holds up those behind it.
        driver.offer(&[Buffer::writable(0x8_0000, HEADER_LEN)]);
        let long: Vec<_> = (0..256)
            .map(|n| if n == 0 { Buffer::readable(0x9_0000, 1) } else { Buffer::writable(0x9_0000 + n * 2, 1) })
            .collect();
        for n in 0..255 {
            driver.offer_indirect(0x10_0000 + n * 0x1000, &long);
        }
        while receiver.buffers.len() < 256 {
            receiver.gather(&mut IoRig::new().turn(), &mut queue).unwrap();
        }
        let segments =
            receiver.buffers.iter().map(|buffer| buffer.chain.readable().len() + buffer.chain.writable().len());
        assert_eq!(segments.sum::<usize>(), 1);
        receiver.put_back(&mut queue).unwrap();
        assert_eq!((queue.in_flight(), driver.take_used()), (0, None));
        assert_eq!(queue.pop(&mut IoRig::new().turn()).unwrap().unwrap().writable_len(), HEADER_LEN);
        assert_eq!(queue.pop(&mut IoRig::new().turn()).unwrap().unwrap().writable().len(), 255);
    }
}
