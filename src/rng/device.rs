//! The device: each chain is filled with what it may have now.

use std::io;
use std::time::{Duration, Instant};

use super::handle::RngHandle;
use crate::config::RngConfig;
use crate::error::Result;
use crate::event::{Cause, Event, Io, Token, Wants};
use crate::limit::TokenBucket;
use crate::meter::{Counter, Meter};
use crate::sys::random_bytes_now;
use crate::virtio::spec::device_id;
use crate::virtio::{Activation, Chain, DeviceInfo, DeviceState, Queue, Queues, VirtioDevice};

const QUEUE_SIZE: u16 = 64;
/// The most bytes that a request gets; the driver asks again for the rest (5.4.6.2).
const MOST: usize = 4096;
/// A limited request waits until it gets so many, rather than be done in crumbs. It is what Linux asks for at once.
const LEAST: u64 = 64;
/// A random byte takes as long as copying so many.
const CHARGE: u64 = 8;
/// How soon the host's kernel is asked again if it has no random bytes.
const TRY_AGAIN: Duration = Duration::from_millis(100);
/// There is nothing to save beside features and queues.
const STATE_VERSION: u32 = 1;

/// Where random bytes come from. It does not wait.
type Source = fn(&mut [u8]) -> io::Result<()>;

pub(crate) struct Rng {
    source: Source,
    handle: RngHandle,
    bucket: Option<TokenBucket>,
    /// A request that waits for what it may have, or for what there is.
    waiting: Option<Chain>,
    until: Option<Instant>,
    /// It waits for what it may have, and that was counted.
    counted: bool,
    token: Option<Token>,
    counters: Counters,
}

#[derive(Default)]
struct Counters {
    bytes: Counter,
    limited: Counter,
    source_failures: Counter,
}

impl Rng {
    pub(crate) fn new(config: &RngConfig) -> Self {
        Self::from(config, random_bytes_now)
    }

    fn from(config: &RngConfig, source: Source) -> Self {
        let bucket = config.rate.map(|rate| TokenBucket::new(rate, Instant::now()));
        let (handle, counters) = (RngHandle::default(), Counters::default());
        Self { source, handle, bucket, waiting: None, until: None, counted: false, token: None, counters }
    }

    pub(crate) fn handle(&self) -> RngHandle {
        self.handle.clone()
    }

    /// Keeps to another rate, if there is one. A request that waits asks again.
    fn look_at_rate(&mut self) {
        if let Some(change) = self.handle.take() {
            TokenBucket::change(&mut self.bucket, change.rate, Instant::now());
            self.until = None;
        }
    }

    fn serve(&mut self, io: &mut Io, queue: &mut Queue) -> Result<()> {
        // Whatever the driver rings for, nothing is to be had before.
        if self.until.is_some_and(|until| io.now() < until) {
            return Ok(());
        }
        self.until = None;
        while self.until.is_none() {
            let waited = self.waiting.take();
            let Some(chain) = waited.map_or_else(|| queue.pop(io), |chain| Ok(Some(chain)))? else { break };
            match self.fill(io, &chain) {
                Ok(written) => queue.complete(chain, written),
                Err(until) => (self.waiting, self.until) = (Some(chain), Some(until)),
            }
        }
        Ok(())
    }

    /// # Errors
    /// When to try again.
    fn fill(&mut self, io: &mut Io, chain: &Chain) -> std::result::Result<u32, Instant> {
        let wanted = u64::from(chain.writable_len()).min(MOST as u64);
        if wanted == 0 {
            return Ok(0);
        }
        let granted = self.look(io, wanted)?;
        let mut bytes = [0; MOST];
        let bytes = usize::try_from(granted).ok().and_then(|len| bytes.get_mut(..len)).unwrap_or_default();
        io.charge(granted.saturating_mul(CHARGE));
        if (self.source)(bytes).is_err() {
            self.counters.source_failures.add(1);
            let now = Instant::now();
            return Err(now.checked_add(TRY_AGAIN).unwrap_or(now));
        }
        self.bucket.iter_mut().for_each(|bucket| bucket.take(granted));
        self.counters.bytes.add(granted);
        // There is room for them.
        let written = chain.write(0, bytes).map_or(0, |()| granted);
        Ok(u32::try_from(written).unwrap_or_default())
    }

    /// How much it may have.
    fn look(&mut self, io: &Io, wanted: u64) -> std::result::Result<u64, Instant> {
        let Some(bucket) = &mut self.bucket else { return Ok(wanted) };
        let there = bucket.look(io.now());
        if let Some(until) = bucket.when(LEAST.min(wanted).min(bucket.burst())) {
            if !std::mem::replace(&mut self.counted, true) {
                self.counters.limited.add(1);
            }
            return Err(until);
        }
        self.counted = false;
        Ok(there.min(wanted))
    }
}

impl VirtioDevice for Rng {
    fn info(&self) -> DeviceInfo {
        DeviceInfo::new(device_id::RNG, &[QUEUE_SIZE])
    }

    fn attach(&mut self, io: &mut Io) -> Result<()> {
        self.token = Some(io.token());
        let token = io.token();
        self.handle.set_waker(io.waker(token));
        // It may have been set before there was a waker.
        self.look_at_rate();
        Ok(())
    }

    fn activate(&mut self, _io: &mut Io, _activation: Activation) -> Result<()> {
        Ok(())
    }

    fn process_queue(&mut self, io: &mut Io, queues: &mut Queues, _index: u16) -> Result<()> {
        queues.get(0).map_or(Ok(()), |queue| self.serve(io, queue))
    }

    fn wants(&self, wants: &mut Wants) {
        if let (Some(token), Some(until)) = (self.token, self.until) {
            wants.deadline(token, until);
        }
    }

    fn woken(&mut self, io: &mut Io, queues: &mut Queues, event: &Event) -> Result<()> {
        if event.cause == Cause::Woken {
            self.look_at_rate();
        }
        queues.get(0).map_or(Ok(()), |queue| self.serve(io, queue))
    }

    fn quiesce(&mut self, _io: &mut Io, queues: &mut Queues) -> Result<()> {
        (self.until, self.counted) = (None, false);
        match (self.waiting.take(), queues.get(0)) {
            (Some(chain), Some(queue)) => queue.put_back(chain),
            _ => Ok(()),
        }
    }

    fn reset(&mut self, _io: &mut Io) {
        (self.waiting, self.until, self.counted) = (None, None, false);
    }

    fn metrics(&self, meter: &mut Meter) {
        meter.counter("random_bytes", &self.counters.bytes);
        meter.counter("limited", &self.counters.limited);
        meter.counter("source_failures", &self.counters.source_failures);
    }

    fn save(&self) -> Result<DeviceState> {
        Ok(DeviceState::new(STATE_VERSION, []))
    }
}

#[cfg(test)]
#[path = "device_test.rs"]
mod tests;
