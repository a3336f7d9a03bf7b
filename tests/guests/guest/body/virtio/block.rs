//! virtio-block (virtio 1.2, section 5.2).

use super::device::{Device, feature};
use super::ring::{Ring, Segment, Used, readable, writable};
use crate::body::machine::cmdline::Cmdline;
use crate::body::machine::memory;

pub const IN: u32 = 0;
pub const OUT: u32 = 1;
pub const FLUSH: u32 = 4;
pub const GET_ID: u32 = 8;
pub const DISCARD: u32 = 11;
pub const WRITE_ZEROES: u32 = 13;

pub const OK: u8 = 0;
pub const IO_ERROR: u8 = 1;
pub const UNSUPPORTED: u8 = 2;
/// What a status byte holds until the device has written it.
pub const UNTOUCHED: u8 = 0xee;

pub const FEATURE_READ_ONLY: u64 = 1 << 5;
pub const FEATURE_FLUSH: u64 = 1 << 9;
pub const MODERN: u64 = feature::VERSION_1 | feature::INDIRECT;

pub const SECTOR: u64 = 512;
/// How long a request may take before the guest gives up on it.
pub const PATIENCE_US: u64 = 5_000_000;
const DEVICE_ID: u32 = 2;

/// How a request ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    pub status: u8,
    pub written: u32,
}

pub struct Block {
    pub device: Device,
    pub ring: Ring,
    pub features: u64,
    pub sectors: u64,
}

impl Block {
    /// The first disk, running with these features.
    pub fn start(cmdline: &Cmdline, features: u64) -> Option<Self> {
        let device = Device::find(cmdline, DEVICE_ID)?;
        let mut block = Self { device, ring: Ring::new(0, 1), features, sectors: device.config(0) };
        block.restart().then_some(block)
    }

    /// Resets the device and brings it up again with an empty queue.
    pub fn restart(&mut self) -> bool {
        self.restart_with(super::ring::MAX_SIZE)
    }

    pub fn restart_with(&mut self, size: u16) -> bool {
        // Before the queue is emptied, the device must have let go of it.
        let agreed = self.device.negotiate(self.features);
        self.ring = Ring::new(0, size);
        let ready = agreed && self.device.set_queue(&self.ring);
        self.device.driver_ok();
        ready
    }

    pub fn is_read_only(&self) -> bool {
        self.device.offered() & FEATURE_READ_ONLY != 0
    }

    pub fn kick(&self) {
        self.device.kick(&self.ring);
    }

    /// Carries out one request alone: header, `data`, status byte.
    pub fn request(&mut self, kind: u32, sector: u64, data: &[Segment]) -> Option<Answer> {
        let mut segments = [readable(0, 0); 16];
        segments[0] = header(0, kind, sector);
        segments[1..=data.len()].copy_from_slice(data);
        segments[data.len() + 1] = status(0);
        self.send(&segments[..data.len() + 2])
    }

    /// Sends any chain, alone, and waits for it; the status is that of slot 0.
    pub fn send(&mut self, segments: &[Segment]) -> Option<Answer> {
        self.ring.chain(0, segments);
        self.ring.offer(0);
        self.kick();
        let Used { written, .. } = self.ring.wait_used(PATIENCE_US)?;
        Some(Answer { status: status_of(0), written })
    }

    /// Whether a valid request is served: what is written comes back, or a read-only disk is read.
    pub fn serves(&mut self) -> bool {
        const LEN: u32 = 1024;
        let read = Some(Answer { status: OK, written: LEN + 1 });
        if self.is_read_only() {
            return self.request(IN, 0, &[writable(memory::DATA, LEN)]) == read;
        }
        let at = 8;
        memory::fill(memory::DATA, LEN.into(), 0x5a);
        if self.request(OUT, at, &[readable(memory::DATA, LEN)]) != Some(Answer { status: OK, written: 1 }) {
            return false;
        }
        memory::fill(memory::DATA, LEN.into(), 0);
        self.request(IN, at, &[writable(memory::DATA, LEN)]) == read && memory::all_are(memory::DATA, LEN.into(), 0x5a)
    }
}

/// The header of the request in a slot, of which there are 256.
pub fn header(slot: u16, kind: u32, sector: u64) -> Segment {
    let at = memory::HEADERS + u64::from(slot) * 16;
    memory::write(at, kind);
    memory::write(at + 4, 0u32);
    memory::write(at + 8, sector);
    readable(at, 16)
}

/// The status byte of the request in a slot.
pub fn status(slot: u16) -> Segment {
    let at = memory::STATUSES + u64::from(slot) * 16;
    memory::write(at, UNTOUCHED);
    writable(at, 1)
}

pub fn status_of(slot: u16) -> u8 {
    memory::read(memory::STATUSES + u64::from(slot) * 16)
}
