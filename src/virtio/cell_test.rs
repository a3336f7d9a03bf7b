//! The device's life: failures, resets, pauses and the end, with requests under way.

use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::error::Result;
use crate::memory::GuestAddress;
use crate::testing::{DriverQueue, MmioDriver, patterned_memory};
use crate::virtio::rig_test::{MODERN, gated, rig_on, running};
use crate::virtio::spec::mmio as reg;
use crate::virtio::spec::status::DEVICE_NEEDS_RESET;
use crate::virtio::{
    Activation, BackendEvent, BackendInterest, BackendSource, IoThread, MmioTransport, Progress, VirtioDevice,
};

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
fn a_device_that_panics_or_fails_needs_a_reset_and_others_go_on() {
    let io_thread = IoThread::new("test-io").unwrap();
    let (mut bad, mut good) = (rig_on(&io_thread, None), rig_on(&io_thread, None));
    good.driver.bring_up(MODERN, &[&good.queue]);
    for panics in [true, false] {
        bad.restart();
        bad.seen.panics.store(panics, Ordering::SeqCst);
        bad.seen.fails.store(!panics, Ordering::SeqCst);
        bad.offer();
        bad.driver.kick(0);
        bad.driver.wait_until("the failure", || bad.driver.status() & DEVICE_NEEDS_RESET != 0);
        good.request();
    }
    bad.seen.fails.store(false, Ordering::SeqCst);
    bad.restart();
    bad.request();
}

/// Long enough for another thread to come to where it waits.
const A_WHILE: Duration = Duration::from_millis(100);

#[test]
fn a_reset_waits_for_the_request_that_is_running_and_forgets_it() {
    let (mut rig, open) = gated();
    (0..3).for_each(|_| rig.offer());
    rig.begin();
    std::thread::scope(|scope| {
        let vcpu = scope.spawn(|| rig.driver.write(reg::STATUS, 0));
        std::thread::sleep(A_WHILE);
        assert!(!vcpu.is_finished());
        open.send(()).unwrap();
    });
    assert_eq!((rig.driver.status(), rig.processed()), (0, 1), "one was running, the others were not begun");
    assert_eq!(rig.queue.used_index(), 0);
    assert_eq!(rig.driver.read(reg::INTERRUPT_STATUS), 0);
    rig.restart();
    open.send(()).unwrap();
    rig.request();
}

#[test]
fn close_does_not_wait_and_releases_who_waits() {
    let (mut rig, open) = gated();
    rig.offer();
    rig.begin();
    std::thread::scope(|scope| {
        let vcpu = scope.spawn(|| rig.driver.write(reg::STATUS, 0));
        std::thread::sleep(A_WHILE);
        assert!(!vcpu.is_finished());
        // The gate stays shut: if this waited for the request, it would wait for ever.
        rig.driver.transport().close();
    });
    rig.driver.kick(0);
    assert_eq!(rig.processed(), 0);
    drop(open);
}

#[test]
fn a_pause_ends_the_batch_and_resume_catches_up() {
    let (mut rig, open) = gated();
    (0..3).for_each(|_| rig.offer());
    rig.begin();
    std::thread::scope(|scope| {
        let pause = scope.spawn(|| rig.driver.transport().pause());
        std::thread::sleep(A_WHILE);
        assert!(!pause.is_finished());
        open.send(()).unwrap();
    });
    assert_eq!(rig.processed(), 1);
    assert_eq!(rig.driver.wait_used(&mut rig.queue).1, 4);
    (0..3).for_each(|_| open.send(()).unwrap());
    rig.offer();
    rig.driver.kick(0);
    std::thread::sleep(A_WHILE);
    assert_eq!((rig.processed(), rig.queue.used_index()), (1, 1), "paused");
    rig.driver.transport().resume();
    (0..3).for_each(|_| assert_eq!(rig.driver.wait_used(&mut rig.queue).1, 4));
}

#[test]
fn a_storm_of_doorbells_does_not_starve_the_neighbour() {
    let io_thread = IoThread::new("test-io").unwrap();
    let (storm, mut quiet) = (rig_on(&io_thread, None), rig_on(&io_thread, None));
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
fn dropping_the_transport_waits_for_the_device() {
    let (mut rig, open) = gated();
    rig.offer();
    rig.begin();
    let seen = Arc::clone(&rig.seen);
    let opener = std::thread::spawn(move || {
        std::thread::sleep(A_WHILE);
        drop(open);
    });
    drop(rig.driver);
    assert_eq!(seen.processed.load(Ordering::SeqCst), 1);
    assert_eq!(Arc::strong_count(&seen), 2, "the device is gone; the rig's handle and this one are left");
    opener.join().unwrap();
}

/// Waits for a socket, and counts what it hears of it.
struct Listener {
    socket: Arc<OwnedFd>,
    calls: Arc<AtomicU32>,
}

impl VirtioDevice for Listener {
    fn device_id(&self) -> u32 {
        42
    }

    fn queue_max_sizes(&self) -> &[u16] {
        &[16]
    }

    fn activate(&mut self, _activation: Activation) -> Result<()> {
        Ok(())
    }

    fn process_queue(&mut self, _index: u16) -> Result<Progress> {
        Ok(Progress::Done)
    }

    fn backend_sources(&self) -> Vec<BackendSource> {
        vec![BackendSource { token: 7, fd: Arc::clone(&self.socket) }]
    }

    fn backend_interest(&self, token: usize) -> BackendInterest {
        BackendInterest { readable: token == 7, writable: false }
    }

    fn process_backend(&mut self, token: usize, event: BackendEvent) -> Result<()> {
        assert!(token == 7 && (event.readable || event.hang_up));
        self.calls.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    fn reset(&mut self) {}
}

#[test]
fn a_source_is_heard_only_while_the_device_is_active_and_a_hang_up_once() {
    let (socket, mut other) = UnixStream::pair().unwrap();
    let calls = Arc::<AtomicU32>::default();
    let device = Box::new(Listener { socket: Arc::new(socket.into()), calls: Arc::clone(&calls) });
    let memory = patterned_memory(1 << 20);
    let transport = MmioTransport::new(device, memory.clone(), &IoThread::new("test-io").unwrap()).unwrap();
    let driver = MmioDriver::new(transport);
    let queue = DriverQueue::new(&memory, GuestAddress(0x1000), 16);
    let count = || calls.load(Ordering::SeqCst);

    other.write_all(b"x").unwrap();
    std::thread::sleep(A_WHILE);
    assert_eq!(count(), 0, "not active yet");
    driver.bring_up(MODERN, &[&queue]);
    driver.wait_until("a call, again and again", || count() > 3);
    driver.transport().pause();
    let calls_then = count();
    std::thread::sleep(A_WHILE);
    assert_eq!(count(), calls_then, "paused");
    driver.transport().resume();
    driver.wait_until("a call", || count() > calls_then);
    drop(other);
    std::thread::sleep(A_WHILE);
    let calls_then = count();
    std::thread::sleep(A_WHILE);
    assert_eq!(count(), calls_then, "hung up, and told once");
    driver.bring_up(MODERN, &[&queue]);
    driver.wait_until("a call in the new life", || count() > calls_then);
    driver.transport().close();
}
