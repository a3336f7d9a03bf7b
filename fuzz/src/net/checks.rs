//! What a card must have done, and nothing else, after each step.

use super::*;
impl Test {
    pub(super) fn allowed(&mut self) -> Vec<Range<u64>> {
        if self.blind {
            return vec![0..MEMORY];
        }
        let mut allowed: Vec<_> = self.rings.iter().map(Ring::used_range).collect();
        for (ring, open) in self.rings.iter().zip(&mut self.open) {
            for open in open {
                if self.hostile {
                    let shape = ring.walk(&self.guest.world, open.head, 256).unwrap_or_default();
                    open.may_write.extend(shape.writable.iter().map(|(gpa, len)| *gpa..*gpa + u64::from(*len)));
                    open.may_write.dedup();
                }
                allowed.extend(open.may_write.iter().cloned());
            }
        }
        allowed
    }

    /// Looks at what the device has done.
    pub(super) fn look(&mut self) {
        let needs_reset = self.guest.read(mmio::STATUS) & status::DEVICE_NEEDS_RESET != 0;
        assert!(self.hostile || !needs_reset, "the device needs a reset though its driver is well-behaved");
        let mut filled: [Vec<_>; PAIRS] = Default::default();
        for queue in 0..QUEUES {
            while let Some((head, written)) = self.rings[queue].take_used(&self.guest.world) {
                let position = self.open[queue].iter().position(|open| u32::from(open.head) == head);
                let Some(open) = position.and_then(|position| self.open[queue].remove(position)) else {
                    assert!(self.hostile, "the chain {head} of queue {queue} was completed, and is not in flight");
                    return;
                };
                if self.hostile {
                    let other = self.open[queue].iter_mut().find(|other| other.head == open.head);
                    other.into_iter().for_each(|other| other.may_write.extend(open.may_write.iter().cloned()));
                } else if let Some(pair) = RECEIVE.iter().position(|receive| *receive == queue) {
                    filled[pair].push((open, written));
                } else {
                    self.check_answer(&open, written);
                    self.receiving = open.pairs.unwrap_or(self.receiving);
                }
            }
        }
        if self.hostile {
            lock(&self.wire).clear();
            self.expected = Default::default();
        } else {
            (0..PAIRS).zip(filled).for_each(|(pair, filled)| self.check_received(pair, filled));
            let delivered = lock(&self.wire).lines.iter().all(|line| line.delivered.is_empty());
            assert!(delivered, "a frame was delivered, and stands in no buffer");
            self.check_sent();
            self.check_dropped();
        }
    }

    fn check_answer(&self, open: &Open, written: u32) {
        let Some(answer) = open.answer else {
            return assert_eq!(written, 0, "bytes written to a frame of the guest's own");
        };
        assert_eq!(u64::from(written), total(&open.shape.writable), "bytes of an answer");
        for (gpa, _) in &open.shape.writable {
            assert_eq!(self.guest.world.mirror(*gpa, 1), [answer], "an answer to a command");
        }
    }

    /// Frames stand in the buffers of their pair as they came, those of each line in order.
    fn check_received(&mut self, pair: usize, filled: Vec<(Open, u32)>) {
        let mut filled = filled.into_iter().filter(|(open, written)| {
            let room = total(&open.shape.writable);
            assert!(u64::from(*written) <= room, "{written} bytes were written to a buffer of {room}");
            *written > 0
        });
        let mut wire = lock(&self.wire);
        while let Some((first, written)) = filled.next() {
            let mut bytes = self.written(&first, written);
            let count = u16::from_le_bytes([bytes[10], bytes[11]]);
            assert!(count == 1 || self.features & MRG_RXBUF != 0, "a frame has {count} buffers, one is allowed");
            for _ in 1..count {
                let (open, written) = filled.next().expect("a frame has fewer buffers than its header says");
                assert!(total(&first.shape.writable) >= 12, "the first buffer has no room for the header");
                bytes.extend(self.written(&open, written));
            }
            let is_it = |(header, frame): &Packet| bytes[..10] == header[..10] && bytes[12..] == *frame;
            let (receiving, changing) = (self.receiving, self.changing);
            let mut lines = wire.lines.iter_mut().enumerate();
            let found = lines.find_map(|(number, line)| {
                // Where the frames of a line go may change in between, and which of two queues was filled first is not known.
                let next = if changing { line.delivered.len() } else { 1 };
                let position = line.delivered.iter().take(next).position(is_it)?;
                line.delivered.remove(position).filter(|_| changing || number % receiving == pair)
            });
            assert!(found.is_some(), "a frame on pair {pair} is not the next of any line that goes there");
        }
    }

    fn written(&self, open: &Open, written: u32) -> Vec<u8> {
        let parts = cut(&open.shape.writable, 0, written.into()).into_iter();
        parts.flat_map(|(gpa, len)| self.guest.world.mirror(gpa, len)).copied().collect()
    }

    /// What the guest has sent is what the wire got, but for what was sent without a link.
    fn check_sent(&mut self) {
        let mut wire = lock(&self.wire);
        for (line, expected) in wire.lines.iter_mut().zip(&mut self.expected) {
            for (header, frame) in line.sent.drain(..) {
                loop {
                    let expected = expected.pop_front().expect("the guest has not sent that frame, or it may not pass");
                    if expected == (header, frame.clone()) {
                        break;
                    }
                    assert!(self.lossy, "the frame that was sent next is {:?}, and should be {:?}", header, expected.0);
                }
            }
        }
    }

    /// What was lost was lost for a reason.
    pub(super) fn check_dropped(&mut self) {
        let mut wire = lock(&self.wire);
        let guest = offloads(self.features, [1, 7, 8, 9]);
        assert_eq!(wire.guest, guest, "what the guest copes with");
        // There was at least as much room as there is still.
        let fits = |open: &&Open| open.shape.readable.is_empty() && total(&open.shape.writable) >= 12;
        let room = RECEIVE
            .map(|queue| -> u64 { self.open[queue].iter().filter(fits).map(|open| total(&open.shape.writable)).sum() });
        for (line, (header, frame)) in wire.dropped.drain(..) {
            let room = if self.changing { room[0].min(room[1]) } else { room[line % self.receiving] };
            let reason = !model::passes(&header, frame.len(), guest) || 12 + frame.len() as u64 > room;
            assert!(
                reason || self.features & MRG_RXBUF == 0,
                "a frame of {} bytes was lost for no reason",
                frame.len()
            );
        }
    }
}
