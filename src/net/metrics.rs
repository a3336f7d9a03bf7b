//! What a network card counts.

use std::time::Duration;

use crate::meter::Tally;

/// Counted up by the thread that owns the card; read by any.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct NicCounters {
    pub(super) received: FrameTallies,
    pub(super) sent: FrameTallies,
}

/// One direction.
#[derive(Debug, Default)]
pub(super) struct FrameTallies {
    frames: Tally,
    bytes: Tally,
    dropped: Tally,
}

/// What was counted since it was last published.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct FrameCounts {
    frames: u64,
    bytes: u64,
    dropped: u64,
}

/// What a network card has done since its VM was built. See [`meter`](crate::meter) for what counters promise. Bytes are those of
/// frames, without the header that virtio adds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct NicMetrics {
    /// Frames that the guest got.
    pub received_frames: u64,
    /// Their bytes.
    pub received_bytes: u64,
    /// Frames for the guest that were dropped, because they did not fit or were none that the guest copes with. Frames that the
    /// host drops before they reach the card are not counted here.
    pub received_dropped: u64,
    /// Frames of the guest that its backend took.
    pub sent_frames: u64,
    /// Their bytes.
    pub sent_bytes: u64,
    /// Frames of the guest that were dropped, because they must not be sent or the link is down.
    pub sent_dropped: u64,
    /// How often the card asked for no frame, because the limits allowed none yet. Each wait is counted once, however long it is.
    pub received_limited: u64,
    /// For how long it did so, in the waits that are over.
    pub received_limited_time: Duration,
    /// How often a frame of the guest waited for the limits.
    pub sent_limited: u64,
    /// How long they waited, those whose wait is over; of several pairs of queues all together.
    pub sent_limited_time: Duration,
}

impl FrameCounts {
    pub(super) fn frame(&mut self, bytes: u64) {
        self.frames = self.frames.wrapping_add(1);
        self.bytes = self.bytes.wrapping_add(bytes);
    }

    pub(super) fn drop_one(&mut self) {
        self.dropped = self.dropped.wrapping_add(1);
    }

    /// Adds it to what others see.
    pub(super) fn publish(&mut self, tallies: &FrameTallies) {
        let Self { frames, bytes, dropped } = std::mem::take(self);
        if frames > 0 {
            tallies.frames.add(frames);
            tallies.bytes.add(bytes);
        }
        if dropped > 0 {
            tallies.dropped.add(dropped);
        }
    }
}

impl NicCounters {
    pub(super) fn read(&self) -> NicMetrics {
        NicMetrics {
            received_frames: self.received.frames.get(),
            received_bytes: self.received.bytes.get(),
            received_dropped: self.received.dropped.get(),
            sent_frames: self.sent.frames.get(),
            sent_bytes: self.sent.bytes.get(),
            sent_dropped: self.sent.dropped.get(),
            ..NicMetrics::default()
        }
    }
}
