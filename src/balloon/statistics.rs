//! What the guest says of its memory (5.5.6.3).

use std::time::{Duration, Instant};

use crate::event::Io;
use crate::virtio::Chain;

/// An entry is a tag of 2 bytes and a value of 8.
const ENTRY: usize = 10;
/// So many entries are read: Linux has 16.
const MOST_ENTRIES: usize = 32;
/// What reading them counts in a turn, in bytes.
const CHARGE: u64 = 1024;

/// What the guest said of its memory, as far as its driver says it. Nothing of this is checked: the guest says what it likes.
///
/// [`BalloonHandle::statistics`](super::BalloonHandle::statistics) returns one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BalloonStatistics {
    /// How long ago it was said.
    pub age: Duration,
    /// Bytes that were swapped in.
    pub swap_in: Option<u64>,
    /// Bytes that were swapped out.
    pub swap_out: Option<u64>,
    /// Page faults for which a disk was read.
    pub major_faults: Option<u64>,
    /// Other page faults.
    pub minor_faults: Option<u64>,
    /// Bytes that are not used for anything.
    pub free: Option<u64>,
    /// Bytes of all memory, without the balloon's unless it may be [deflated](crate::BalloonConfig::deflate_on_oom()).
    pub total: Option<u64>,
    /// Bytes that could be had without swapping.
    pub available: Option<u64>,
    /// Bytes of caches that could be given up without swapping.
    pub caches: Option<u64>,
    /// Huge pages that were allocated.
    pub huge_page_allocations: Option<u64>,
    /// Huge pages that were asked for, and not there.
    pub huge_page_failures: Option<u64>,
    /// Processes that were ended because memory ran out (Linux 6.12, as is what follows).
    pub oom_kills: Option<u64>,
    /// How often an allocation had to wait.
    pub allocation_stalls: Option<u64>,
    /// Pages that were looked at, to reclaim them, in the background.
    pub async_scans: Option<u64>,
    /// Pages that were looked at, to reclaim them, while an allocation waited.
    pub direct_scans: Option<u64>,
    /// Pages that were reclaimed in the background.
    pub async_reclaims: Option<u64>,
    /// Pages that were reclaimed while an allocation waited.
    pub direct_reclaims: Option<u64>,
}

/// Statistics, and when they came.
#[derive(Clone, Debug)]
pub(super) struct Received {
    said: BalloonStatistics,
    at: Instant,
}

impl Received {
    /// Reads them out of a chain. Entries behind the most that a driver has are left out, and so are tags that nobody knows.
    pub(super) fn read(io: &mut Io, chain: &Chain) -> Self {
        let mut bytes = [0; ENTRY * MOST_ENTRIES];
        let len = usize::try_from(chain.readable_len()).unwrap_or(usize::MAX).min(bytes.len());
        io.charge(CHARGE);
        let bytes = bytes.get_mut(..len).unwrap_or_default();
        let read = chain.read(0, bytes);
        let mut said = BalloonStatistics::default();
        if read.is_ok() {
            bytes.chunks_exact(ENTRY).for_each(|entry| said.take(entry));
        }
        Self { said, at: Instant::now() }
    }

    pub(super) fn now(&self) -> BalloonStatistics {
        BalloonStatistics { age: self.at.elapsed(), ..self.said.clone() }
    }
}

impl BalloonStatistics {
    /// What was said, each by its name.
    pub(crate) fn said(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let named = [
            ("swap_in", self.swap_in),
            ("swap_out", self.swap_out),
            ("major_faults", self.major_faults),
            ("minor_faults", self.minor_faults),
            ("free", self.free),
            ("total", self.total),
            ("available", self.available),
            ("caches", self.caches),
            ("huge_page_allocations", self.huge_page_allocations),
            ("huge_page_failures", self.huge_page_failures),
            ("oom_kills", self.oom_kills),
            ("allocation_stalls", self.allocation_stalls),
            ("async_scans", self.async_scans),
            ("direct_scans", self.direct_scans),
            ("async_reclaims", self.async_reclaims),
            ("direct_reclaims", self.direct_reclaims),
        ];
        named.into_iter().filter_map(|(name, value)| Some((name, value?)))
    }

    fn take(&mut self, entry: &[u8]) {
        let [tag0, tag1, value @ ..] = entry else { return };
        let Ok(value) = <[u8; 8]>::try_from(value) else { return };
        if let Some(place) = self.place(u16::from_le_bytes([*tag0, *tag1])) {
            *place = Some(u64::from_le_bytes(value));
        }
    }

    /// By its tag (5.5.6.4; from 10 on, as in Linux's `virtio_balloon.h`).
    fn place(&mut self, tag: u16) -> Option<&mut Option<u64>> {
        Some(match tag {
            0 => &mut self.swap_in,
            1 => &mut self.swap_out,
            2 => &mut self.major_faults,
            3 => &mut self.minor_faults,
            4 => &mut self.free,
            5 => &mut self.total,
            6 => &mut self.available,
            7 => &mut self.caches,
            8 => &mut self.huge_page_allocations,
            9 => &mut self.huge_page_failures,
            10 => &mut self.oom_kills,
            11 => &mut self.allocation_stalls,
            12 => &mut self.async_scans,
            13 => &mut self.direct_scans,
            14 => &mut self.async_reclaims,
            15 => &mut self.direct_reclaims,
            _ => return None,
        })
    }
}
