//! Buffers of the guest's that are out of its card's hands, until a frame is in them.

use std::fmt;

use super::header::HEADER_LEN;
use super::offloads::Offloads;
use crate::memory::GuestRanges;
use crate::virtio::{Chain, Queue};

/// A buffer of a guest's, [lent](super::RxBatch::lend) to whoever has a frame for it. It may be sent to any thread. What becomes of it is
/// said there.
pub struct RxBuffer {
    chain: Chain,
    data: GuestRanges,
    mergeable: bool,
    offloads: Offloads,
}

impl RxBuffer {
    /// How many bytes in front of a frame are left free for its header, in the first of its buffers alone.
    pub const HEADROOM: u64 = HEADER_LEN as u64;

    pub(super) fn new(chain: Chain, data: GuestRanges, mergeable: bool, offloads: Offloads) -> Self {
        Self { chain, data, mergeable, offloads }
    }

    /// Returns the guest's memory: a frame begins [`HEADROOM`](Self::HEADROOM) bytes from its start, and goes on at the start of the next
    /// buffer. The guest may read and change it at any time.
    pub fn data(&self) -> &GuestRanges {
        &self.data
    }

    /// Whether the guest takes frames that are spread over several buffers.
    pub fn is_mergeable(&self) -> bool {
        self.mergeable
    }

    /// Returns what a frame in it may leave undone.
    pub fn offloads(&self) -> Offloads {
        self.offloads
    }

    pub(super) fn into_parts(self) -> (Chain, GuestRanges) {
        (self.chain, self.data)
    }
}

impl fmt::Debug for RxBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RxBuffer").field("data", &self.data).finish_non_exhaustive()
    }
}

/// Takes back what a card has lent, unfilled. It is lent to a backend for one call of [`recall`](super::NicBackend::recall).
#[derive(Default)]
pub struct RxReturn {
    chains: Vec<Chain>,
}

impl RxReturn {
    /// Gives a buffer back: the guest's next frame may go there, unless the guest has reset the card.
    pub fn give(&mut self, buffer: RxBuffer) {
        self.chains.push(buffer.chain);
    }

    /// Puts the chains back into the queue that they came from, as if they had not been taken.
    pub(super) fn put_back(mut self, queue: &mut Queue) {
        let Some(first) = self.chains.first().map(Chain::position) else { return };
        // Positions wrap around, and lie no further from each other than the queue is long, which is at most half of all.
        self.chains.sort_by_key(|chain| chain.position().wrapping_sub(first).cast_signed());
        for chain in self.chains.into_iter().rev() {
            // Behind one that was filled meanwhile, none can be put back any more: it is completed instead, without a frame.
            let _ = queue.put_back(chain);
        }
    }
}

impl fmt::Debug for RxReturn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RxReturn").field("count", &self.chains.len()).finish()
    }
}

#[cfg(test)]
#[path = "lend_test.rs"]
mod tests;
