//! Offloads: the work on a frame that one side of a link may leave to the other.

pub use crate::sys::Offloads;

use super::feature;

impl Offloads {
    /// No offloads: every frame is complete, has its checksums, and is no longer than the MTU allows.
    pub const NONE: Self = Self { checksum: false, tso4: false, tso6: false, ecn: false };

    /// All offloads that a virtio-net header can express.
    pub const ALL: Self = Self { checksum: true, tso4: true, tso6: true, ecn: true };

    /// What two sets have in common.
    pub(super) fn common(self, other: Self) -> Self {
        Self {
            checksum: self.checksum && other.checksum,
            tso4: self.tso4 && other.tso4,
            tso6: self.tso6 && other.tso6,
            ecn: self.ecn && other.ecn,
        }
    }

    /// What the guest copes with in the frames that it receives.
    pub(super) fn to_guest(features: u64) -> Self {
        Self::of(features, TO_GUEST)
    }

    /// What the guest may leave undone in the frames that it sends.
    pub(super) fn to_host(features: u64) -> Self {
        Self::of(features, TO_HOST)
    }

    fn of(features: u64, [checksum, tso4, tso6, ecn]: [u32; 4]) -> Self {
        let has = |bit: u32| features.checked_shr(bit).is_some_and(|bits| bits & 1 == 1);
        Self { checksum: has(checksum), tso4: has(tso4), tso6: has(tso6), ecn: has(ecn) }
    }

    /// The features that offer these, in both directions. What needs another one is left out without it.
    pub(super) fn features(self) -> u64 {
        let segments = |on: bool| on && self.checksum;
        let (tso4, tso6) = (segments(self.tso4), segments(self.tso6));
        let on = [self.checksum, tso4, tso6, self.ecn && (tso4 || tso6)];
        let bits = |bits: [u32; 4]| {
            bits.into_iter().zip(on).filter(|(_, on)| *on).fold(0, |mask, (bit, _)| mask | 1u64.wrapping_shl(bit))
        };
        bits(TO_GUEST) | bits(TO_HOST)
    }
}

const TO_GUEST: [u32; 4] = [feature::GUEST_CSUM, feature::GUEST_TSO4, feature::GUEST_TSO6, feature::GUEST_ECN];
const TO_HOST: [u32; 4] = [feature::CSUM, feature::HOST_TSO4, feature::HOST_TSO6, feature::HOST_ECN];
