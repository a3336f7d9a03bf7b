//! Packets that wait for a member of a service: bounded in number, in bytes, and in time.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::packet::{Flow, IPV6_LEN};
use crate::sys::lock;
use crate::sys::sync::Mutex;
use crate::sys::sync::atomic::{AtomicUsize, Ordering};

/// What a packet costs beside its bytes.
const COST: usize = 128;

/// How many bytes wait in a whole network.
#[derive(Debug)]
pub(in crate::network) struct Total {
    bytes: AtomicUsize,
    most: usize,
}

impl Total {
    pub(in crate::network) fn new(most: usize) -> Self {
        Self { bytes: AtomicUsize::new(0), most }
    }

    fn take(&self, bytes: usize) -> bool {
        let more = |before: usize| before.checked_add(bytes).filter(|sum| *sum <= self.most);
        self.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    fn give_back(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// What waits for one service.
#[derive(Debug)]
pub(in crate::network) struct HeldPackets {
    most: usize,
    most_bytes: usize,
    time: Duration,
    total: Arc<Total>,
    store: Mutex<Store>,
}

#[derive(Debug, Default)]
struct Store {
    packets: VecDeque<HeldPacket>,
    /// Of these, and of those that are just being put in or looked at.
    count: usize,
    bytes: usize,
}

/// A packet that waits, with whole checksums.
#[derive(Debug)]
pub(in crate::network) struct HeldPacket {
    pub(in crate::network) bytes: Vec<u8>,
    pub(in crate::network) until: Instant,
}

impl HeldPackets {
    pub(super) fn new(most: usize, most_bytes: usize, time: Duration, total: Arc<Total>) -> Self {
        Self { most, most_bytes, time, total, store: Mutex::default() }
    }

    /// Storage for a packet of `len` bytes, if there is room for one more.
    pub(in crate::network) fn open(&self, len: usize) -> Option<Vec<u8>> {
        let cost = len.saturating_add(COST);
        let mut store = lock(&self.store);
        let bytes = store.bytes.saturating_add(cost);
        if store.count >= self.most || bytes > self.most_bytes || !self.total.take(cost) {
            return None;
        }
        store.count = store.count.saturating_add(1);
        store.bytes = bytes;
        drop(store);
        Some(vec![0; len])
    }

    /// Keeps a packet in storage that came from [`open`](Self::open). Says whether it is the only one.
    pub(in crate::network) fn put(&self, bytes: Vec<u8>) -> bool {
        let now = Instant::now();
        let until = now.checked_add(self.time).unwrap_or(now);
        let mut store = lock(&self.store);
        store.packets.push_back(HeldPacket { bytes, until });
        store.packets.len() == 1
    }

    /// Puts back a packet that was taken out, in front of all others.
    pub(in crate::network) fn put_back(&self, packet: HeldPacket) {
        lock(&self.store).packets.push_front(packet);
    }

    /// Takes all packets out. Their room is theirs until each of them is put back or [let go](Self::let_go).
    pub(in crate::network) fn take(&self) -> VecDeque<HeldPacket> {
        std::mem::take(&mut lock(&self.store).packets)
    }

    /// Takes the one out that has waited for longest.
    pub(in crate::network) fn take_first(&self) -> Option<HeldPacket> {
        lock(&self.store).packets.pop_front()
    }

    /// Takes a packet out that has waited for long enough. They have come in the order in which that happens.
    pub(in crate::network) fn take_late(&self, now: Instant) -> Option<HeldPacket> {
        lock(&self.store).packets.pop_front_if(|packet| packet.until <= now)
    }

    pub(in crate::network) fn let_go(&self, packet: &HeldPacket) {
        let cost = packet.bytes.len().saturating_add(COST);
        let mut store = lock(&self.store);
        store.count = store.count.saturating_sub(1);
        store.bytes = store.bytes.saturating_sub(cost);
        self.total.give_back(cost);
    }

    /// Whether a packet of the same flow waits.
    pub(in crate::network) fn has(&self, flow: &Flow) -> bool {
        let ports = [flow.source_port.to_be_bytes(), flow.port.to_be_bytes()];
        let is_same = |bytes: &[u8]| {
            bytes.get(6) == Some(&flow.protocol)
                && bytes.get(8..24) == Some(&flow.source.octets())
                && bytes.get(24..40) == Some(&flow.destination.octets())
                && bytes.get(IPV6_LEN..IPV6_LEN.saturating_add(4)) == Some(ports.as_flattened())
        };
        lock(&self.store).packets.iter().any(|packet| is_same(&packet.bytes))
    }

    /// How many wait.
    pub(in crate::network) fn len(&self) -> usize {
        lock(&self.store).count
    }

    /// When the first one has waited for long enough.
    pub(in crate::network) fn until(&self) -> Option<Instant> {
        lock(&self.store).packets.front().map(|packet| packet.until)
    }
}

impl Drop for HeldPackets {
    fn drop(&mut self) {
        self.total.give_back(lock(&self.store).bytes);
    }
}
