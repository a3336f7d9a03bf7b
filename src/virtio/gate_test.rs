//! The device's life: failures, resets, pauses and the end, with requests under way.

use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::error::{ErrorKind, Result};
use crate::event::{Event, Interest, Io, IoThread, Token, Wants};
use crate::logging::{LogLevel, Logger};
use crate::memory::GuestAddress;
use crate::testing::{Buffer, DriverQueue, MmioDriver, patterned_memory};
use crate::virtio::rig_test::{MODERN, Rig, latched, rig, rig_on, running};
use crate::virtio::spec::mmio as reg;
use crate::virtio::spec::status::DEVICE_NEEDS_RESET;
use crate::virtio::{Activation, DeviceInfo, FailureCause, MmioTransport, Queues, TransportState, VirtioDevice};

/// Longer than any device of these tests takes.
const LIMIT: Duration = Duration::from_secs(10);

#[test]
fn an_index_that_jumps_makes_the_device_need_a_reset_and_a_reset_helps() {
    let mut rig = running();
    rig.driver.transport().interrupt().take();
    rig.queue.set_avail_index(1000);
    rig.driver.kick(0);
    rig.driver.wait_until("the failure", || rig.driver.status() & DEVICE_NEEDS_RESET != 0);
    assert_eq!(rig.driver.status(), 15 | DEVICE_NEEDS_RESET);
    assert_eq!(rig.driver.read(reg::INTERRUPT_STATUS), reg::INTERRUPT_CONFIG);
    assert!(rig.driver.transport().interrupt().take());
    rig.driver.kick(0);
    rig.restart();
    assert_eq!(rig.driver.status(), 15);
    rig.request();
}

#[test]
fn a_device_that_fails_is_served_again_after_a_reset_and_one_that_panics_never_while_others_go_on() {
    let io_thread = IoThread::new("test-io").unwrap();
    let (mut bad, mut good) = (rig_on(&io_thread), rig_on(&io_thread));
    good.driver.bring_up(MODERN, &[&good.queue]);
    let mut fail = |bad: &mut Rig| {
        bad.restart();
        bad.offer();
        bad.driver.kick(0);
        bad.driver.wait_until("the failure", || bad.driver.status() & DEVICE_NEEDS_RESET != 0);
        good.request();
        bad.driver.transport().failure().unwrap()
    };
    bad.seen.fails.store(true, Ordering::SeqCst);
    for count in 1..4 {
        let failure = fail(&mut bad);
        assert_eq!((failure.cause, failure.count, &*failure.message), (FailureCause::Error, count, "told to fail"));
    }
    bad.seen.fails.store(false, Ordering::SeqCst);
    bad.restart();
    bad.request();
    assert!(!bad.driver.transport().failure().unwrap().needs_reset);
    bad.seen.panics.store(true, Ordering::SeqCst);
    let failure = fail(&mut bad);
    let (cause, message) = (FailureCause::Panicked, "the device panicked: told to panic");
    assert_eq!((failure.cause, failure.count, &*failure.message), (cause, 4, message));
    bad.seen.panics.store(false, Ordering::SeqCst);
    assert_eq!(fail(&mut bad), failure);
}

#[test]
fn a_guest_that_breaks_its_queue_all_the_time_is_one_failure_with_a_count() {
    let mut rig = running();
    for count in 1..=100 {
        rig.queue.set_avail_index(1000);
        rig.driver.kick(0);
        rig.driver.wait_until("the failure", || rig.driver.status() & DEVICE_NEEDS_RESET != 0);
        let failure = rig.driver.transport().failure().unwrap();
        assert_eq!((failure.cause, failure.count, failure.needs_reset), (FailureCause::BrokenQueue, count, true));
        assert_eq!(rig.driver.transport().metrics().failures, count);
        rig.restart();
    }
    rig.request();
    assert!(!rig.driver.transport().metrics().needs_reset);
}

/// Long enough for another thread to come to where it waits.
const A_WHILE: Duration = Duration::from_millis(100);

/// Gives every chain back as it is.
struct Returns;

impl VirtioDevice for Returns {
    fn info(&self) -> DeviceInfo {
        DeviceInfo::new(42, &[64])
    }

    fn activate(&mut self, _io: &mut Io, _activation: Activation) -> Result<()> {
        Ok(())
    }

    fn process_queue(&mut self, io: &mut Io, queues: &mut Queues, index: u16) -> Result<()> {
        let Some(queue) = queues.get(index) else { return Ok(()) };
        while let Some(chain) = queue.pop(io)? {
            queue.complete(chain, 0);
        }
        Ok(())
    }

    fn reset(&mut self, _io: &mut Io) {}
}

#[test]
fn chains_that_break_the_rules_are_said_with_their_number_and_not_each_of_them() {
    let said = Arc::new(std::sync::Mutex::new(Vec::new()));
    let hears = Arc::clone(&said);
    let logger = Logger::new(
        "".into(),
        Some(Box::new(move |record| hears.lock().unwrap().push((record.level, record.to_string())))),
    );
    let (memory, io_thread) = (patterned_memory(1 << 20), IoThread::new("said").unwrap());
    let voice = logger.about("disk0");
    let driver =
        MmioDriver::new(MmioTransport::saying(voice, Box::new(Returns), memory.clone(), &io_thread, None).unwrap());
    let mut queue = DriverQueue::new(&memory, GuestAddress(0x1000), 64);
    driver.bring_up(driver.offered(), &[&queue]);
    for _ in 0..20 {
        queue.offer(&[Buffer::writable(0x9000, 1), Buffer::readable(0x8000, 16)]);
        driver.kick(0);
        driver.wait_used(&mut queue);
    }
    driver.wait_until("all to be counted", || driver.transport().metrics().refused_chains == 20);
    let said = said.lock().unwrap();
    assert!(said.len() < 20, "{said:?}");
    let (level, text) = &said[0];
    assert_eq!(*level, LogLevel::Warn);
    assert!(text.starts_with("disk0: ") && text.ends_with(" in all"), "{text}");
}

#[test]
fn a_reset_waits_for_the_request_that_is_running_and_forgets_it() {
    let (mut rig, opener) = latched();
    (0..3).for_each(|_| rig.offer());
    rig.begin();
    std::thread::scope(|scope| {
        let vcpu = scope.spawn(|| rig.driver.write(reg::STATUS, 0));
        std::thread::sleep(A_WHILE);
        assert!(!vcpu.is_finished());
        assert_ne!(rig.driver.status(), 0, "other vCPUs see that the reset is not over");
        opener.open();
    });
    assert_eq!((rig.driver.status(), rig.processed()), (0, 1), "one was running, the others were not begun");
    assert_eq!(rig.queue.used_index(), 0);
    assert_eq!(rig.driver.read(reg::INTERRUPT_STATUS), 0);
    rig.restart();
    opener.open();
    rig.request();
}

#[test]
fn a_reset_holds_its_own_vcpu_and_no_other() {
    let (mut rig, opener) = latched();
    rig.offer();
    rig.begin();
    std::thread::scope(|scope| {
        let vcpus = [(); 3].map(|()| scope.spawn(|| rig.driver.write(reg::STATUS, 0)));
        std::thread::sleep(A_WHILE);
        assert!(vcpus.iter().all(|vcpu| !vcpu.is_finished()));
        let begun = Instant::now();
        for offset in (0..reg::WINDOW).step_by(4).filter(|offset| *offset != reg::STATUS) {
            rig.driver.read(offset);
        }
        for offset in (0..reg::CONFIG).step_by(4).filter(|offset| *offset != reg::STATUS) {
            rig.driver.write(offset, u32::MAX);
        }
        rig.driver.write(reg::STATUS, 15);
        assert!(begun.elapsed() < Duration::from_secs(5));
        assert_eq!(rig.driver.read(reg::QUEUE_READY), 0, "queue {}", u32::MAX);
        opener.open();
    });
    assert_eq!(rig.driver.status(), 0);
    rig.restart();
    opener.open();
    rig.request();
}

#[test]
fn close_does_not_wait_and_releases_those_who_do() {
    let (mut rig, _opener) = latched();
    rig.offer();
    rig.begin();
    std::thread::scope(|scope| {
        let vcpu = scope.spawn(|| rig.driver.write(reg::STATUS, 0));
        let pause = scope.spawn(|| rig.driver.transport().pause(LIMIT));
        std::thread::sleep(A_WHILE);
        assert!(!vcpu.is_finished() && !pause.is_finished());
        // The latch stays shut: if this waited for the request, it would wait for ever.
        rig.driver.transport().close();
        assert!(pause.join().unwrap().is_ok());
    });
    rig.driver.kick(0);
    assert_eq!(rig.processed(), 0);
}

#[test]
fn a_pause_waits_for_what_is_in_flight_and_resume_catches_up() {
    let (mut rig, opener) = latched();
    (0..3).for_each(|_| rig.offer());
    rig.begin();
    std::thread::scope(|scope| {
        let pause = scope.spawn(|| rig.driver.transport().pause(LIMIT));
        std::thread::sleep(A_WHILE);
        assert!(!pause.is_finished());
        opener.open();
        pause.join().unwrap().unwrap();
    });
    assert_eq!(rig.processed(), 1);
    assert_eq!(rig.driver.wait_used(&mut rig.queue).1, 4);
    (0..3).for_each(|_| opener.open());
    rig.offer();
    rig.driver.kick(0);
    std::thread::sleep(A_WHILE);
    assert_eq!((rig.processed(), rig.queue.used_index()), (1, 1), "paused");
    rig.driver.transport().resume();
    (0..3).for_each(|_| assert_eq!(rig.driver.wait_used(&mut rig.queue).1, 4));
}

#[test]
fn a_pause_that_takes_too_long_is_given_up_and_the_device_goes_on() {
    let (mut rig, opener) = latched();
    rig.offer();
    rig.begin();
    let error = rig.driver.transport().pause(A_WHILE).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.to_string().contains("type 42"), "{error}");
    rig.offer();
    rig.driver.kick(0);
    (0..2).for_each(|_| opener.open());
    (0..2).for_each(|_| assert_eq!(rig.driver.wait_used(&mut rig.queue).1, 4));
}

#[test]
fn a_device_that_was_saved_goes_on_where_it_was() {
    let mut rig = running();
    rig.request();
    rig.driver.write(reg::INTERRUPT_ACK, reg::INTERRUPT_USED);
    assert!(rig.driver.transport().save().is_err(), "it runs");
    rig.driver.transport().pause(LIMIT).unwrap();
    rig.offer();
    let state = rig.driver.transport().save().unwrap();
    assert_eq!(state.queues[0].progress.next_avail, 1);

    let other = rig_on(&IoThread::new("test-io").unwrap());
    let io_thread = IoThread::new("test-io").unwrap();
    other.driver.transport().pause(LIMIT).unwrap();
    let refused = |change: &dyn Fn(&mut crate::virtio::TransportState)| {
        let mut state = state.clone();
        change(&mut state);
        let device = Box::new(Listener::new(7).0);
        MmioTransport::restore(device, other.memory.clone(), &io_thread, &state).map(drop).unwrap_err()
    };
    assert!(refused(&|state| state.version = 2).to_string().contains("version 2, known is 1"));
    assert!(refused(&|state| state.device_id = 7).to_string().contains("type 7"));
    assert!(refused(&|state| state.queues.clear()).to_string().contains("0 queues"));
    assert!(refused(&|state| state.features = u64::MAX).to_string().contains("not offered"));
    assert!(refused(&|state| state.status = 4).to_string().contains("0x4"));

    let restored = other.restored(&state, &rig.memory, &io_thread);
    assert_eq!(restored.status(), 15);
    restored.kick(0);
    std::thread::sleep(A_WHILE);
    assert_eq!(rig.queue.used_index(), 1, "it stands still");
    restored.transport().resume();
    assert_eq!(restored.wait_used(&mut rig.queue).1, 4);
}

/// Saves the device as its driver has left it, and builds another one from that.
fn moved(rig: &Rig) -> (MmioDriver, TransportState) {
    rig.driver.transport().pause(LIMIT).unwrap();
    let state = rig.driver.transport().save().unwrap();
    let restored = rig.restored(&state, &rig.memory, &IoThread::new("test-io").unwrap());
    assert_eq!(restored.transport().save().unwrap(), state, "what is saved again is the same");
    restored.transport().resume();
    (restored, state)
}

#[test]
fn features_that_are_not_agreed_on_yet_are_restored_as_they_are() {
    let rig = rig();
    rig.driver.write(reg::STATUS, 1);
    rig.driver.write(reg::STATUS, 3);
    rig.driver.write(reg::DRIVER_FEATURES, u32::MAX);
    let (restored, _) = moved(&rig);
    restored.write(reg::STATUS, 11);
    assert_eq!(restored.status(), 3, "they are not agreed on");
    restored.bring_up(MODERN, &[&rig.queue]);
}

#[test]
fn a_device_whose_driver_has_given_up_is_restored_as_it_was() {
    let mut rig = running();
    rig.request();
    rig.driver.write(reg::STATUS, 15 | 128);
    let (restored, state) = moved(&rig);
    assert!(state.device.is_some());
    assert_eq!(state.queues[0].progress.next_avail, 1);
    rig.offer();
    restored.kick(0);
    assert_eq!(restored.wait_used(&mut rig.queue).1, 4);
}

#[test]
fn a_storm_of_doorbells_does_not_starve_the_neighbour() {
    let io_thread = IoThread::new("test-io").unwrap();
    let (storm, mut quiet) = (rig_on(&io_thread), rig_on(&io_thread));
    storm.driver.bring_up(MODERN, &[&storm.queue]);
    quiet.driver.bring_up(MODERN, &[&quiet.queue]);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::SeqCst) {
                storm.driver.kick(0);
            }
        });
        let start = Instant::now();
        (0..100).for_each(|_| quiet.request());
        stop.store(true, Ordering::SeqCst);
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    });
}

#[test]
fn dropping_the_transport_drops_the_device() {
    let (mut rig, _opener) = latched();
    rig.offer();
    rig.begin();
    let seen = Arc::clone(&rig.seen);
    drop(rig.driver);
    assert_eq!(Arc::strong_count(&seen), 2, "the device is gone; the rig's handle and this one are left");
}

/// Waits for a socket, and counts what it hears of it.
struct Listener {
    socket: Arc<OwnedFd>,
    token: Option<Token>,
    calls: Arc<AtomicU32>,
    device_id: u32,
}

impl Listener {
    fn new(device_id: u32) -> (Self, UnixStream, Arc<AtomicU32>) {
        let (socket, other) = UnixStream::pair().unwrap();
        let calls = Arc::<AtomicU32>::default();
        let socket = Arc::new(socket.into());
        (Self { socket, token: None, calls: Arc::clone(&calls), device_id }, other, calls)
    }
}

impl VirtioDevice for Listener {
    fn info(&self) -> DeviceInfo {
        DeviceInfo::new(if self.device_id == 7 { 42 } else { self.device_id }, &[16, 32])
    }

    fn attach(&mut self, io: &mut Io) -> Result<()> {
        self.token = Some(io.token());
        Ok(())
    }

    fn activate(&mut self, _io: &mut Io, _activation: Activation) -> Result<()> {
        Ok(())
    }

    fn process_queue(&mut self, _io: &mut Io, _queues: &mut Queues, _index: u16) -> Result<()> {
        Ok(())
    }

    fn wants(&self, wants: &mut Wants) {
        if let Some(token) = self.token {
            wants.descriptor(token, &self.socket, Interest::Readable);
        }
    }

    fn woken(&mut self, _io: &mut Io, _queues: &mut Queues, event: &Event) -> Result<()> {
        assert!(self.token == Some(event.token) && (event.is_readable() || event.is_hang_up()));
        self.calls.fetch_add(1, Ordering::SeqCst);
        if event.is_hang_up() {
            self.token = None;
        }
        Ok(())
    }

    fn reset(&mut self, _io: &mut Io) {}
}

#[test]
fn a_source_is_heard_while_it_is_wanted_and_not_while_the_device_is_paused() {
    let (device, mut other, calls) = Listener::new(42);
    let memory = patterned_memory(1 << 20);
    let io_thread = IoThread::new("test-io").unwrap();
    let driver = MmioDriver::new(MmioTransport::new(Box::new(device), memory.clone(), &io_thread).unwrap());
    let queue = DriverQueue::new(&memory, GuestAddress(0x1000), 16);
    let count = || calls.load(Ordering::SeqCst);

    driver.bring_up(MODERN, &[&queue]);
    other.write_all(b"x").unwrap();
    driver.wait_until("a call, again and again", || count() > 3);
    driver.transport().pause(LIMIT).unwrap();
    let calls_then = count();
    std::thread::sleep(A_WHILE);
    assert_eq!(count(), calls_then, "paused");
    driver.transport().resume();
    driver.wait_until("a call", || count() > calls_then);
    drop(other);
    std::thread::sleep(A_WHILE);
    let calls_then = count();
    std::thread::sleep(A_WHILE);
    assert_eq!(count(), calls_then, "hung up, and not wanted any more");
}

#[test]
fn a_device_that_waits_for_what_cannot_be_waited_for_needs_a_reset_each_time_its_driver_tries() {
    let file = tempfile::tempfile().unwrap();
    let listener = Listener { socket: Arc::new(file.into()), token: None, calls: Arc::default(), device_id: 42 };
    let (memory, io_thread) = (patterned_memory(1 << 20), IoThread::new("test-io").unwrap());
    let driver = MmioDriver::new(MmioTransport::new(Box::new(listener), memory.clone(), &io_thread).unwrap());
    for _ in 0..3 {
        driver.wait_until("the failure", || driver.status() & DEVICE_NEEDS_RESET != 0);
        driver.transport().pause(LIMIT).unwrap();
        driver.transport().resume();
        driver.write(reg::STATUS, 0);
        driver.wait_until("the reset", || driver.status() & !DEVICE_NEEDS_RESET == 0);
    }
}

/// Keeps each chain until it is reset.
#[derive(Default)]
struct Keeper {
    kept: Vec<crate::virtio::Chain>,
    count: Arc<AtomicU32>,
}

impl VirtioDevice for Keeper {
    fn info(&self) -> DeviceInfo {
        DeviceInfo::new(42, &[16])
    }

    fn activate(&mut self, _io: &mut Io, _activation: Activation) -> Result<()> {
        Ok(())
    }

    fn process_queue(&mut self, io: &mut Io, queues: &mut Queues, index: u16) -> Result<()> {
        let Some(queue) = queues.get(index) else { return Ok(()) };
        while let Some(chain) = queue.pop(io)? {
            self.kept.push(chain);
            self.count.fetch_add(1, Ordering::SeqCst);
        }
        Ok(())
    }

    fn reset(&mut self, _io: &mut Io) {
        self.kept.clear();
    }
}

#[test]
fn a_guest_that_makes_a_device_fail_with_requests_in_flight_can_be_paused_all_the_same() {
    let (memory, io_thread) = (patterned_memory(1 << 20), IoThread::new("test-io").unwrap());
    let keeper = Keeper::default();
    let count = Arc::clone(&keeper.count);
    let driver = MmioDriver::new(MmioTransport::new(Box::new(keeper), memory.clone(), &io_thread).unwrap());
    let mut queue = DriverQueue::new(&memory, GuestAddress(0x1000), 16);
    driver.bring_up(MODERN, &[&queue]);
    queue.offer(&[crate::testing::Buffer::writable(0x8000, 4)]);
    driver.kick(0);
    driver.wait_until("the request to begin", || count.load(Ordering::SeqCst) == 1);
    queue.set_avail_index(1000);
    driver.kick(0);
    driver.wait_until("the failure", || driver.status() & DEVICE_NEEDS_RESET != 0);
    driver.transport().pause(A_WHILE).unwrap();
    driver.transport().resume();
    assert_eq!(driver.status(), 15 | DEVICE_NEEDS_RESET);
    queue = DriverQueue::new(&memory, GuestAddress(0x1000), 16);
    driver.bring_up(MODERN, &[&queue]);
    queue.offer(&[crate::testing::Buffer::writable(0x8000, 4)]);
    driver.kick(0);
    driver.wait_until("the next request", || count.load(Ordering::SeqCst) == 2);
}

#[test]
fn two_threads_that_pause_both_wait_for_what_is_in_flight() {
    let (mut rig, opener) = latched();
    rig.offer();
    rig.begin();
    std::thread::scope(|scope| {
        let pauses = [(); 2].map(|()| scope.spawn(|| rig.driver.transport().pause(LIMIT)));
        std::thread::sleep(A_WHILE);
        assert!(pauses.iter().all(|pause| !pause.is_finished()), "a request is in flight");
        opener.open();
        pauses.into_iter().for_each(|pause| pause.join().unwrap().unwrap());
    });
    assert_eq!(rig.processed(), 1);
}

#[test]
fn a_pause_that_is_overtaken_by_a_resume_says_so() {
    let (mut rig, opener) = latched();
    rig.offer();
    rig.begin();
    std::thread::scope(|scope| {
        let pause = scope.spawn(|| rig.driver.transport().pause(LIMIT));
        std::thread::sleep(A_WHILE);
        rig.driver.transport().resume();
        let error = pause.join().unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidState);
    });
    opener.open();
    assert_eq!(rig.driver.wait_used(&mut rig.queue).1, 4);
}

#[test]
fn a_state_whose_features_no_driver_can_have_agreed_on_is_refused() {
    let rig = running();
    rig.driver.transport().pause(LIMIT).unwrap();
    let state = rig.driver.transport().save().unwrap();
    let io_thread = IoThread::new("test-io").unwrap();
    let dependent_alone = MODERN | crate::virtio::rig_test::DEPENDENT_FEATURE;
    for features in [0, MODERN & !(1 << crate::virtio::spec::feature::VERSION_1), dependent_alone] {
        let mut state = state.clone();
        state.features = features;
        let error = rig.try_restored(&state, &rig.memory, &io_thread).map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{features:#x}");
    }
    // A driver in the middle of its negotiation may have set anything.
    let mut early = state.clone();
    (early.status, early.features) = (3, 0);
    early.queues.iter_mut().for_each(|queue| queue.ready = false);
    rig.try_restored(&early, &rig.memory, &io_thread).unwrap();
    // A queue becomes ready after the features are agreed on.
    early.queues[0].ready = true;
    assert!(rig.try_restored(&early, &rig.memory, &io_thread).is_err());
}
