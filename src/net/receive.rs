//! From the backend to the guest: which buffers a frame goes to.

use std::collections::VecDeque;
use std::io;

use super::backend::Backend;
use super::header::{ETHERNET_LEN, HEADER_LEN, MAX_PACKET, NUM_BUFFERS_OFFSET};
use crate::error::Result;
use crate::memory::{GuestMemory, IoRanges};
use crate::virtio::{Chain, Queue};

/// Frames received before the other devices on the thread get their turn.
const BATCH: usize = 64;

/// The receiving half of a running device.
pub(super) struct Receiver {
    queue: Queue,
    memory: GuestMemory,
    /// A frame may be spread over several chains.
    mergeable: bool,
    /// Chains that were taken but not filled yet. Nobody knows how long the next frame is before it is read.
    buffers: VecDeque<Chain>,
    /// All of them together, in bytes.
    room: u64,
    /// What the receiver waits for.
    waiting: Waiting,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waiting {
    /// The next frame.
    Frame,
    /// Buffers of the driver; frames wait in the backend meanwhile.
    Buffers,
    /// Nothing any more: the backend fails.
    Nothing,
}

impl Receiver {
    pub(super) fn new(queue: Queue, memory: GuestMemory, mergeable: bool) -> Self {
        Self { queue, memory, mergeable, buffers: VecDeque::new(), room: 0, waiting: Waiting::Buffers }
    }

    pub(super) fn waiting(&self) -> Waiting {
        self.waiting
    }

    /// Receives frames until there are none, or no buffers, or the batch is full; then the backend is still readable.
    pub(super) fn run(&mut self, backend: &mut dyn Backend) -> Result<()> {
        for _ in 0..BATCH {
            self.gather()?;
            let Some(ranges) = self.ranges()? else {
                self.waiting = Waiting::Buffers;
                return Ok(());
            };
            match backend.receive(&ranges) {
                Ok(len) => self.deliver(len, ranges.len()),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => {
                    // It would be reported as readable for ever.
                    self.waiting = Waiting::Nothing;
                    return Ok(());
                }
            }
        }
        self.waiting = Waiting::Frame;
        Ok(())
    }

    /// Takes chains until the largest frame fits, or there are none.
    fn gather(&mut self) -> Result<()> {
        while if self.mergeable { self.room < MAX_PACKET.into() } else { self.buffers.is_empty() } {
            let Some(chain) = self.queue.pop()? else { break };
            let least = if self.mergeable { HEADER_LEN } else { HEADER_LEN.saturating_add(ETHERNET_LEN) };
            if chain.readable_len() > 0 || chain.writable_len() < least {
                chain.complete(0);
                continue;
            }
            self.room = self.room.saturating_add(chain.writable_len().into());
            self.buffers.push_back(chain);
        }
        Ok(())
    }

    fn ranges(&self) -> Result<Option<IoRanges>> {
        if self.room < u64::from(HEADER_LEN.saturating_add(ETHERNET_LEN)) {
            return Ok(None);
        }
        let segments = self.buffers.iter().flat_map(|chain| chain.writable());
        IoRanges::new(&self.memory, segments.map(|segment| (segment.gpa, segment.len))).map(Some)
    }

    /// Hands the buffers that hold `len` bytes to the driver, all at once (5.1.6.4).
    fn deliver(&mut self, len: usize, offered: u64) {
        let len = u32::try_from(len).unwrap_or(0);
        let cut = self.mergeable && u64::from(len) == offered && offered < MAX_PACKET.into();
        if len < HEADER_LEN.saturating_add(ETHERNET_LEN) || cut {
            // Too short to be a frame, or too long for what the driver offers: dropped, and the buffers used again.
            return;
        }
        let mut filled = Vec::new();
        let mut rest = len;
        while rest > 0 {
            let Some(chain) = self.buffers.pop_front() else { break };
            self.room = self.room.saturating_sub(chain.writable_len().into());
            let written = rest.min(chain.writable_len());
            rest = rest.saturating_sub(written);
            filled.push((chain, written));
        }
        let count = u16::try_from(filled.len()).unwrap_or(u16::MAX);
        if let Some((first, _)) = filled.first() {
            // The first buffer has room for a whole header, or it would not have been taken.
            let _ = first.write(NUM_BUFFERS_OFFSET, &count.to_le_bytes());
        }
        Chain::complete_together(filled);
    }
}
