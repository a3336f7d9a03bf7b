//! A device that is reset, paused, closed or asked for more while it works: in each order of the threads' steps.

use std::sync::Arc;
use std::time::Duration;

use super::rig_test::{BUFFER, MODERN, Rig, latched, rig};
use super::spec::mmio as reg;
use super::{Activation, Chain, DeviceInfo, MmioTransport, Queues, VirtioDevice};
use crate::error::Result;
use crate::event::{Io, IoThread};
use crate::memory::{GuestAddress, GuestMemory};
use crate::sys::model::check;
use crate::sys::sync::atomic::{Ordering, fence};
use crate::sys::sync::{Mutex, thread};
use crate::sys::{EventFd, lock};
use crate::testing::{Buffer, DriverQueue, MmioDriver, patterned_memory};

/// No time passes in a model.
const LIMIT: Duration = Duration::from_secs(600);

fn content(memory: &GuestMemory) -> [u8; 4] {
    let mut bytes = [0; 4];
    memory.read(GuestAddress(BUFFER), &mut bytes).unwrap();
    bytes
}

#[test]
fn a_reset_waits_for_a_request_in_flight_and_nothing_is_written_after_it() {
    check(|| {
        let (mut rig, opener) = latched();
        rig.offer();
        rig.driver.kick(0);
        let opens = thread::spawn(move || opener.open());
        rig.driver.write(reg::STATUS, 0);
        assert_eq!(rig.driver.status(), 0);
        rig.memory.write(GuestAddress(BUFFER), b"mine").unwrap();
        opens.join().unwrap();
        rig.driver.transport().pause(LIMIT).unwrap();
        assert_eq!(content(&rig.memory), *b"mine");
    });
}

#[test]
fn a_pause_waits_for_a_request_in_flight_and_what_was_rung_for_meanwhile_is_served_after_it() {
    check(|| {
        let (mut rig, opener) = latched();
        rig.offer();
        rig.driver.kick(0);
        let Rig { driver, mut queue, .. } = rig;
        let driver = Arc::new(driver);
        let pauses = Arc::clone(&driver);
        let pauses = thread::spawn(move || {
            let transport = pauses.transport();
            transport.pause(LIMIT).unwrap();
            transport.save().unwrap();
            transport.resume();
        });
        let opens = thread::spawn(move || (0..2).for_each(|_| opener.open()));
        queue.offer(&[Buffer::writable(BUFFER, 4)]);
        driver.kick(0);
        for _ in 0..2 {
            while queue.take_used().is_none() {
                driver.transport().interrupt().wait();
            }
            ask_for_next_interrupt(&queue);
        }
        [pauses, opens].into_iter().for_each(|thread| thread.join().unwrap());
    });
}

/// And look at the ring once more after that.
fn ask_for_next_interrupt(queue: &DriverQueue) {
    queue.set_used_event(queue.used_index());
    fence(Ordering::SeqCst);
}

#[test]
fn a_driver_that_rings_only_if_it_is_asked_to_is_served_all_the_same() {
    check(|| {
        let mut rig = rig();
        rig.driver.bring_up(MODERN, &[&rig.queue]);
        for _ in 0..3 {
            let before = rig.queue.avail_index();
            rig.offer();
            fence(Ordering::SeqCst);
            if rig.queue.avail_event() == before {
                rig.driver.kick(0);
            }
            while rig.queue.take_used().is_none() {
                rig.driver.transport().interrupt().wait();
            }
            ask_for_next_interrupt(&rig.queue);
        }
    });
}

#[test]
fn a_device_that_is_closed_releases_whoever_waits_for_its_reset() {
    check(|| {
        let (mut rig, opener) = latched();
        rig.offer();
        rig.driver.kick(0);
        let driver = Arc::new(rig.driver);
        let closes = Arc::clone(&driver);
        let closes = thread::spawn(move || closes.transport().close());
        // The request is not let go.
        driver.write(reg::STATUS, 0);
        closes.join().unwrap();
        opener.open();
    });
}

/// Gives its chains to another thread, which lets go of them.
struct Hands {
    chains: Arc<Mutex<Vec<Chain>>>,
    given: Arc<EventFd>,
}

impl VirtioDevice for Hands {
    fn info(&self) -> DeviceInfo {
        DeviceInfo::new(42, &[16])
    }

    fn activate(&mut self, _io: &mut Io, _activation: Activation) -> Result<()> {
        Ok(())
    }

    fn process_queue(&mut self, io: &mut Io, queues: &mut Queues, index: u16) -> Result<()> {
        let Some(queue) = queues.get(index) else { return Ok(()) };
        while let Some(chain) = queue.pop(io)? {
            lock(&self.chains).push(chain);
            self.given.signal();
        }
        Ok(())
    }

    fn reset(&mut self, _io: &mut Io) {}
}

/// A driver whose request another thread has taken, and lets go at some time.
fn handed_over() -> (MmioDriver, DriverQueue, thread::JoinHandle<()>) {
    let memory = patterned_memory(1 << 20);
    let (chains, given) = (Arc::<Mutex<Vec<Chain>>>::default(), Arc::new(EventFd::new().unwrap()));
    let device = Box::new(Hands { chains: Arc::clone(&chains), given: Arc::clone(&given) });
    let io_thread = IoThread::new("model-io").unwrap();
    let driver = MmioDriver::new(MmioTransport::new(device, memory.clone(), &io_thread).unwrap());
    let mut queue = DriverQueue::new(&memory, GuestAddress(0x1000), 16);
    driver.bring_up(MODERN, &[&queue]);
    queue.offer(&[Buffer::writable(BUFFER, 4)]);
    driver.kick(0);
    given.wait();
    let lets_go = thread::spawn(move || {
        let chain = lock(&chains).pop().unwrap();
        let _ = chain.write(0, b"late");
    });
    (driver, queue, lets_go)
}

#[test]
fn a_reset_waits_until_another_thread_has_let_go_of_a_request() {
    check(|| {
        let (driver, queue, lets_go) = handed_over();
        driver.write(reg::STATUS, 0);
        queue.memory().write(GuestAddress(BUFFER), b"mine").unwrap();
        lets_go.join().unwrap();
        assert_eq!(content(queue.memory()), *b"mine");
    });
}

#[test]
fn a_pause_waits_until_another_thread_has_let_go_of_a_request() {
    check(|| {
        let (driver, mut queue, lets_go) = handed_over();
        driver.transport().pause(LIMIT).unwrap();
        assert_eq!(content(queue.memory()), *b"late");
        assert_eq!(queue.take_used(), Some((0, 0)));
        lets_go.join().unwrap();
    });
}
