//! Feature bits and config space of a disk.

use super::super::backend::DiskInfo;
use super::super::request::{Limits, MAX_DISCARD_RANGES, MAX_DISCARD_SECTORS, MAX_ZEROES_RANGES, MAX_ZEROES_SECTORS};

pub(super) const QUEUE_SIZE: u16 = 256;
/// Feature bits (5.2.3).
pub(super) mod feature {
    pub(crate) const SEG_MAX: u32 = 2;
    pub(crate) const RO: u32 = 5;
    pub(crate) const BLK_SIZE: u32 = 6;
    pub(crate) const FLUSH: u32 = 9;
    pub(crate) const MQ: u32 = 12;
    pub(crate) const DISCARD: u32 = 13;
    pub(crate) const WRITE_ZEROES: u32 = 14;
}

/// Data segments of one request: a chain has a header and a status beside them.
const MAX_SEGMENTS: u32 = QUEUE_SIZE as u32 - 2;
/// The config space as far as we have fields (5.2.4).
const CONFIG_LEN: usize = 60;

pub(super) fn config_space(info: &DiskInfo, read_only: bool, queue_count: u16) -> Vec<u8> {
    let mut config = vec![0; CONFIG_LEN];
    let mut put = |at: usize, bytes: &[u8]| {
        for (to, from) in config.iter_mut().skip(at).zip(bytes) {
            *to = *from;
        }
    };
    let limits = Limits::new(info, read_only);
    put(0, &limits.capacity.to_le_bytes());
    put(12, &MAX_SEGMENTS.to_le_bytes());
    put(20, &info.block_size.to_le_bytes());
    put(34, &queue_count.to_le_bytes());
    if !read_only {
        put(36, &MAX_DISCARD_SECTORS.to_le_bytes());
        put(40, &MAX_DISCARD_RANGES.to_le_bytes());
        // Ranges are aligned to a block, in sectors.
        put(44, &u32::try_from(limits.block).unwrap_or(1).to_le_bytes());
        put(48, &MAX_ZEROES_SECTORS.to_le_bytes());
        put(52, &MAX_ZEROES_RANGES.to_le_bytes());
        put(56, &[1]);
    }
    config
}
