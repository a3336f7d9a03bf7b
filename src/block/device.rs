//! The virtio-block device: config space, and each chain from the queue to its status byte.

use std::io;
use std::time::{Duration, Instant};

use super::backend::{Backend, Operation};
use super::request::{
    DATA_OFFSET, Limits, MAX_DISCARD_RANGES, MAX_DISCARD_SECTORS, MAX_ZEROES_RANGES, MAX_ZEROES_SECTORS, Refusal,
    Request, SECTOR, Status, parse,
};
use crate::error::Result;
use crate::memory::{GuestMemory, IoRanges};
use crate::virtio::spec::device_id;
use crate::virtio::{Activation, Chain, Progress, Queue, Segment, VirtioDevice, read_config_bytes};

/// Feature bits (5.2.3).
pub(super) mod feature {
    pub(crate) const SEG_MAX: u32 = 2;
    pub(crate) const RO: u32 = 5;
    pub(crate) const BLK_SIZE: u32 = 6;
    pub(crate) const FLUSH: u32 = 9;
    pub(crate) const DISCARD: u32 = 13;
    pub(crate) const WRITE_ZEROES: u32 = 14;
}

const QUEUE_SIZE: u16 = 256;
/// Data segments of one request: a chain has a header and a status beside them.
const MAX_SEGMENTS: u32 = QUEUE_SIZE as u32 - 2;
/// Requests served before the other devices on the thread get their turn.
const BATCH: usize = 32;
/// The driver is not left waiting for a batch that takes longer than this.
const SLOW: Duration = Duration::from_micros(200);
/// The config space as far as we have fields (5.2.4).
const CONFIG_LEN: usize = 60;

pub(crate) struct Block {
    backend: Box<dyn Backend>,
    limits: Limits,
    serial: [u8; 20],
    running: Option<Running>,
}

struct Running {
    queue: Queue,
    memory: GuestMemory,
    /// The driver does not flush, so each write is made stable by itself (5.2.5).
    write_through: bool,
}

impl Block {
    pub(super) fn new(backend: Box<dyn Backend>, limits: Limits, serial: &str) -> Self {
        let mut padded = [0; 20];
        for (to, from) in padded.iter_mut().zip(serial.bytes()) {
            *to = from;
        }
        Self { backend, limits, serial: padded, running: None }
    }

    fn config(&self) -> [u8; CONFIG_LEN] {
        let mut config = [0; CONFIG_LEN];
        let mut put = |at: usize, bytes: &[u8]| {
            for (to, from) in config.iter_mut().skip(at).zip(bytes) {
                *to = *from;
            }
        };
        let sector = u32::try_from(SECTOR).unwrap_or_default();
        put(0, &self.limits.capacity.to_le_bytes());
        put(12, &MAX_SEGMENTS.to_le_bytes());
        put(20, &sector.to_le_bytes());
        if !self.limits.read_only {
            put(36, &MAX_DISCARD_SECTORS.to_le_bytes());
            put(40, &MAX_DISCARD_RANGES.to_le_bytes());
            // Ranges need not be aligned to more than a sector.
            put(44, &1u32.to_le_bytes());
            put(48, &MAX_ZEROES_SECTORS.to_le_bytes());
            put(52, &MAX_ZEROES_RANGES.to_le_bytes());
            put(56, &[1]);
        }
        config
    }
}

impl VirtioDevice for Block {
    fn device_id(&self) -> u32 {
        device_id::BLOCK
    }

    fn features(&self) -> u64 {
        let common = 1 << feature::SEG_MAX | 1 << feature::BLK_SIZE | 1 << feature::FLUSH;
        let writing = 1 << feature::DISCARD | 1 << feature::WRITE_ZEROES;
        common | if self.limits.read_only { 1 << feature::RO } else { writing }
    }

    fn queue_max_sizes(&self) -> &[u16] {
        &[QUEUE_SIZE]
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        read_config_bytes(&self.config(), offset, data);
    }

    fn activate(&mut self, mut activation: Activation) -> Result<()> {
        let write_through = !activation.has(feature::FLUSH);
        self.running =
            activation.take_queue(0).map(|queue| Running { queue, memory: activation.memory.clone(), write_through });
        Ok(())
    }

    fn process_queue(&mut self, _index: u16) -> Result<Progress> {
        let Some(running) = &self.running else { return Ok(Progress::Done) };
        let mut told = Instant::now();
        for _ in 0..BATCH {
            let Some(chain) = running.queue.pop()? else { return Ok(Progress::Done) };
            serve(self.backend.as_mut(), running, self.limits, &self.serial, chain);
            if told.elapsed() > SLOW {
                running.queue.notify();
                told = Instant::now();
            }
        }
        Ok(Progress::More)
    }

    fn reset(&mut self) {
        self.running = None;
    }
}

/// Carries out one chain, and completes it with its status.
fn serve(backend: &mut dyn Backend, running: &Running, limits: Limits, serial: &[u8], chain: Chain) {
    let outcome = match parse(&chain, limits) {
        Ok(request) => carry_out(backend, running, serial, &chain, request).map_err(|_| Status::IoError),
        Err(Refusal::Status(status)) => Err(status),
        Err(Refusal::NoStatus) => return chain.complete(0),
    };
    let (status, data) = match outcome {
        Ok(written) => (Status::Ok, written),
        Err(status) => (status, 0),
    };
    let last = chain.writable_len().saturating_sub(1);
    let written = if chain.write(last, &[status as u8]).is_ok() { data.saturating_add(1) } else { 0 };
    chain.complete(written);
}

/// Says how many bytes of data were written to the guest.
fn carry_out(
    backend: &mut dyn Backend,
    running: &Running,
    serial: &[u8],
    chain: &Chain,
    request: Request,
) -> io::Result<u32> {
    match request {
        Request::Read(range) => {
            let len = chain.writable_len().saturating_sub(1);
            let data = ranges(&running.memory, chain.writable_range(0, len))?;
            backend.run(&Operation::Read { offset: range.offset, data })?;
            return Ok(len);
        }
        Request::Write(range) => {
            let data = ranges(&running.memory, chain.readable_range(DATA_OFFSET, u32::MAX))?;
            backend.run(&Operation::Write { offset: range.offset, data })?;
            settle(backend, running)?;
        }
        Request::Flush => backend.run(&Operation::Flush)?,
        Request::Serial(len) => {
            let len_bytes = usize::try_from(len).unwrap_or_default();
            chain.write(0, serial.get(..len_bytes).unwrap_or(serial)).map_err(io::Error::other)?;
            return Ok(len);
        }
        Request::Discard(ranges) => {
            for range in ranges.into_iter().filter(|range| range.len > 0) {
                backend.run(&Operation::Discard(range))?;
            }
        }
        Request::WriteZeroes { range, unmap } => {
            if range.len > 0 {
                backend.run(&Operation::WriteZeroes { range, unmap })?;
                settle(backend, running)?;
            }
        }
    }
    Ok(0)
}

fn settle(backend: &mut dyn Backend, running: &Running) -> io::Result<()> {
    if running.write_through { backend.run(&Operation::Flush) } else { Ok(()) }
}

fn ranges(memory: &GuestMemory, segments: impl Iterator<Item = Segment>) -> io::Result<IoRanges> {
    IoRanges::new(memory, segments.map(|segment| (segment.gpa, segment.len))).map_err(io::Error::other)
}

#[cfg(test)]
#[path = "device_test.rs"]
mod tests;
