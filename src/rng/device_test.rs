//! Requests for random bytes, by a driver in the same process.

use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::config::RateLimit;
use crate::event::IoThread;
use crate::memory::{GuestAddress, GuestMemory};
use crate::testing::{Buffer, DriverQueue, MmioDriver, patterned_memory};
use crate::virtio::MmioTransport;

const DATA: u64 = 0x1_0000;
const LIMIT: Duration = Duration::from_secs(10);

struct Rig {
    driver: MmioDriver,
    queue: DriverQueue,
    memory: GuestMemory,
    thread: IoThread,
}

impl Rig {
    fn new(device: Rng) -> Self {
        let memory = patterned_memory(1 << 20);
        let thread = IoThread::new("rng").unwrap();
        let transport = MmioTransport::new(Box::new(device), memory.clone(), &thread).unwrap();
        let (driver, queue) = (MmioDriver::new(transport), DriverQueue::new(&memory, GuestAddress(0x1000), 64));
        driver.bring_up(driver.offered(), &[&queue]);
        Self { driver, queue, memory, thread }
    }

    fn limited(per_second: u64, burst: u64) -> Self {
        Self::new(Rng::new(&RngConfig::new().rate(RateLimit::per_second(per_second).burst(burst))))
    }

    fn ask(&mut self, len: u32) {
        self.queue.offer(&[Buffer::writable(DATA, len)]);
        self.driver.kick(0);
    }

    fn used(&mut self) -> u32 {
        self.driver.wait_used(&mut self.queue).1
    }

    fn bytes(&self, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.memory.read(GuestAddress(at), &mut bytes).unwrap();
        bytes
    }

    fn count(&self, name: &str) -> u64 {
        self.driver.transport().own_counters()[name]
    }
}

#[test]
fn each_request_gets_other_bytes_up_to_its_length_or_4096() {
    let mut rig = Rig::new(Rng::new(&RngConfig::new()));
    let behind = rig.bytes(DATA + 4096, 4096);
    let mut seen = vec![rig.bytes(DATA, 16)];
    for (asked, given) in [(16, 16), (64, 64), (4096, 4096), (1 << 19, 4096)] {
        rig.ask(asked);
        assert_eq!(rig.used(), given);
        let bytes = rig.bytes(DATA, 16);
        assert!(!seen.contains(&bytes));
        seen.push(bytes);
    }
    assert_eq!(rig.bytes(DATA + 4096, 4096), behind);
    assert_eq!(rig.count("random_bytes"), 16 + 64 + 4096 + 4096);
}

/// By the frequency of each byte: of 1 MiB, a byte comes 4096 times, give or take 6 times the square root of that.
#[test]
fn all_bytes_come_as_often_as_each_other() {
    let mut rig = Rig::new(Rng::new(&RngConfig::new()));
    let mut counts = [0u32; 256];
    for _ in 0..256 {
        rig.ask(4096);
        rig.used();
        rig.bytes(DATA, 4096).into_iter().for_each(|byte| counts[usize::from(byte)] += 1);
    }
    assert!(counts.iter().all(|count| count.abs_diff(4096) < 6 * 64), "{counts:?}");
}

#[test]
fn a_request_that_can_get_nothing_is_given_back() {
    let mut rig = Rig::new(Rng::new(&RngConfig::new()));
    rig.queue.offer(&[Buffer::readable(DATA, 64)]);
    rig.driver.kick(0);
    assert_eq!(rig.used(), 0);
    rig.ask(64);
    assert_eq!(rig.used(), 64);
}

#[test]
fn a_limited_guest_gets_its_burst_and_then_waits_without_using_a_cpu() {
    let mut rig = Rig::limited(640, 128);
    let begun = Instant::now();
    (0..6).for_each(|_| rig.ask(64));
    (0..2).for_each(|_| assert_eq!(rig.used(), 64));
    let turns = rig.thread.metrics().turns;
    (0..4).for_each(|_| assert_eq!(rig.used(), 64));
    // 384 bytes, of which 128 came at once.
    assert!(begun.elapsed() >= Duration::from_millis(400), "{:?}", begun.elapsed());
    let turns = rig.thread.metrics().turns - turns;
    assert!(turns < 40, "{turns} turns for four requests");
    assert_eq!(rig.count("limited"), 4);
}

#[test]
fn a_request_that_waits_is_counted_once_however_often_the_driver_rings() {
    let mut rig = Rig::limited(64, 64);
    rig.ask(64);
    assert_eq!(rig.used(), 64);
    rig.ask(64);
    while rig.queue.take_used().is_none() {
        rig.driver.kick(0);
    }
    assert_eq!(rig.count("limited"), 1);
}

#[test]
fn another_rate_is_that_of_a_request_that_waits_too() {
    let device = Rng::new(&RngConfig::new());
    let handle = device.handle();
    // Before there is a thread.
    handle.set_rate(Some(RateLimit::per_second(1).burst(64))).unwrap();
    let mut rig = Rig::new(device);
    rig.ask(64);
    assert_eq!(rig.used(), 64);
    rig.ask(64);
    rig.driver.wait_until("a wait", || rig.count("limited") == 1);
    handle.set_rate(None).unwrap();
    assert_eq!(rig.used(), 64);
    for _ in 0..10 {
        rig.ask(64);
        assert_eq!(rig.used(), 64);
    }
    // A limit where there was none has its burst.
    handle.set_rate(Some(RateLimit::per_second(1).burst(100))).unwrap();
    rig.driver.transport().pause(LIMIT).unwrap();
    rig.driver.transport().resume();
    rig.ask(4096);
    assert_eq!(rig.used(), 100);
    // Another one keeps what is there, which is nothing.
    handle.set_rate(Some(RateLimit::per_second(1).burst(4096))).unwrap();
    rig.ask(64);
    rig.driver.wait_until("a wait", || rig.count("limited") == 2);
    let error = handle.set_rate(Some(RateLimit::per_second(0))).unwrap_err().to_string();
    assert_eq!(error, "the rng: a limit of 0 a second and 0 at once was asked for, allowed are 1 to 1099511627776");
    handle.set_rate(Some(RateLimit::per_second(1 << 20))).unwrap();
    assert_eq!(rig.used(), 64);
}

#[test]
fn a_source_that_fails_uses_up_no_limit() {
    static ASKED: AtomicU32 = AtomicU32::new(0);
    fn late(_: &mut [u8]) -> io::Result<()> {
        if ASKED.fetch_add(1, Ordering::SeqCst) < 2 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
    }
    let config = RngConfig::new().rate(RateLimit::per_second(1).burst(64));
    let mut rig = Rig::new(Rng::from(&config, late));
    rig.ask(64);
    assert_eq!((rig.used(), rig.count("source_failures"), rig.count("limited")), (64, 2, 0));
}

#[test]
fn a_request_that_waits_is_put_back_by_a_pause_and_forgotten_by_a_reset() {
    let mut rig = Rig::limited(1, 64);
    rig.ask(64);
    assert_eq!(rig.used(), 64);
    rig.ask(64);
    rig.driver.wait_until("the limit", || rig.driver.transport().own_counters()["limited"] > 0);
    rig.driver.transport().pause(LIMIT).unwrap();
    rig.driver.transport().save().unwrap();
    rig.driver.transport().resume();
    rig.driver.wait_until("the limit again", || rig.driver.transport().own_counters()["limited"] > 1);
    let begun = Instant::now();
    rig.driver.write(crate::virtio::spec::mmio::STATUS, 0);
    rig.driver.wait_until("the reset", || rig.driver.status() == 0);
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert_eq!(rig.queue.take_used(), None);
}

#[test]
fn a_host_without_random_bytes_is_asked_again() {
    static ASKED: AtomicU32 = AtomicU32::new(0);
    fn late(bytes: &mut [u8]) -> io::Result<()> {
        bytes.fill(7);
        if ASKED.fetch_add(1, Ordering::SeqCst) < 2 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
    }
    let mut rig = Rig::new(Rng::from(&RngConfig::new(), late));
    rig.ask(16);
    assert_eq!(rig.used(), 16);
    assert_eq!((rig.bytes(DATA, 16), rig.count("source_failures"), rig.count("random_bytes")), (vec![7; 16], 2, 16));
}
