//! The suite for virtio devices: what every device must withstand, whatever it does.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::driver::{Buffer, DriverQueue};
use super::mmio::MmioDriver;
use super::patterned_memory;
use crate::bus::BusDevice;
use crate::error::ErrorKind;
use crate::event::IoThread;
use crate::memory::{GuestAddress, GuestMemory};
use crate::virtio::spec::feature::{RING_EVENT_IDX, RING_INDIRECT_DESC, VERSION_1};
use crate::virtio::spec::{mmio, ring, status};
use crate::virtio::{MmioTransport, VirtioDevice};

const MEMORY: u64 = 1 << 20;
const QUEUE_SIZE: u16 = 16;
const BUFFER: u64 = 0x8_0000;
const TABLE: u64 = 0x9_0000;
const BASE: u64 = 1 << VERSION_1 | 1 << RING_EVENT_IDX | 1 << RING_INDIRECT_DESC;

/// The suite for virtio devices: it treats a device in all the ways that every device must withstand.
///
/// `make` makes a device. `serves` sends valid requests to the running device, and panics if one is not answered as it should be.
/// It gets the device's queues, all of them empty and of 16 descriptors. The memory has 1 MiB, and `serves` may use the
/// addresses from 64 KiB to 512 KiB for its buffers.
pub struct Conformance<M, S> {
    make: M,
    serves: S,
    features: u64,
    prepare: Box<Prepare>,
    writable: Range<u64>,
    quiet: Vec<usize>,
}

/// What a driver does before its device uses all queues.
type Prepare = dyn Fn(&MmioDriver, &mut [DriverQueue]);

struct Running {
    driver: MmioDriver,
    queues: Vec<DriverQueue>,
    memory: GuestMemory,
}

impl<M, S> Conformance<M, S>
where
    M: Fn() -> Box<dyn VirtioDevice>,
    S: Fn(&MmioDriver, &mut [DriverQueue]),
{
    /// Makes the suite. The driver accepts those of the device's own features that `features`, a mask of bits, holds.
    pub fn new(make: M, serves: S, features: u64) -> Self {
        Self { make, serves, features, prepare: Box::new(|_, _| {}), writable: 0..0, quiet: Vec::new() }
    }

    /// Has `prepare` called whenever the device was brought up: it tells a device to use all of its queues, if that is not so from
    /// the start. It gets the queues as `serves` does, and must leave them empty.
    #[must_use]
    pub fn prepare(mut self, prepare: impl Fn(&MmioDriver, &mut [DriverQueue]) + 'static) -> Self {
        self.prepare = Box::new(prepare);
        self
    }

    /// Says which bytes of the device's config space a driver may write. By default none, and the suite demands that all stay as they are.
    #[must_use]
    pub fn writable_config(mut self, bytes: Range<u64>) -> Self {
        self.writable = bytes;
        self
    }

    /// Says of a queue that the device looks at its buffers only when it has something to tell. Tests that wait for the answer to a malformed
    /// one leave it out.
    #[must_use]
    pub fn quiet_queue(mut self, queue: usize) -> Self {
        self.quiet.push(queue);
        self
    }

    /// Runs every test.
    ///
    /// # Panics
    /// If the device fails one.
    pub fn run(&self) {
        self.config_space_is_whole_at_every_width();
        self.only_offered_features_are_accepted();
        self.malformed_chains_are_answered();
        self.an_index_that_jumps_needs_a_reset();
        self.a_reset_at_any_time_leaves_it_whole();
        self.memory_that_changes_meanwhile_is_survived();
        self.pause_and_resume_lose_nothing();
        self.one_that_was_saved_goes_on_as_another();
    }

    fn config_space_is_whole_at_every_width(&self) {
        let mut running = self.start();
        let transport = running.driver.transport();
        let read = |offset: u64, len: usize| {
            let mut data = vec![0; len];
            transport.read(mmio::CONFIG + offset, &mut data);
            data
        };
        let bytes: Vec<u8> = (0..0x208).flat_map(|offset| read(offset, 1)).collect();
        for offset in 0..0x200u64 {
            for len in 1..=8usize {
                transport.write(mmio::CONFIG + offset, &[0xff; 8][..len]);
                if len.is_power_of_two() {
                    let byte = |at| if self.writable.contains(&at) { read(at, 1)[0] } else { bytes[at as usize] };
                    let expected: Vec<u8> = (offset..offset + len as u64).map(byte).collect();
                    assert_eq!(read(offset, len), expected, "config space at {offset:#x}, {len} bytes");
                }
            }
        }
        self.assert_serves(&mut running);
    }

    fn only_offered_features_are_accepted(&self) {
        let running = self.start();
        let offered = running.driver.offered();
        for bit in (0..64).filter(|bit| offered & 1 << bit == 0) {
            assert!(!running.driver.negotiate(BASE | 1 << bit), "feature {bit} was not offered, but accepted");
        }
    }

    fn malformed_chains_are_answered(&self) {
        let next = ring::DESCRIPTOR_NEXT;
        let indirect = ring::DESCRIPTOR_INDIRECT;
        let bad: [(u64, u32, u16, u16); 9] = [
            (BUFFER, 4, next, 0),
            (BUFFER, 4, next, QUEUE_SIZE),
            (BUFFER, 0, 0, 0),
            (MEMORY, 4, 0, 0),
            (u64::MAX, 4, 0, 0),
            (0, u32::MAX, ring::DESCRIPTOR_WRITE, 0),
            (TABLE, 0, indirect, 0),
            (TABLE, 17, indirect, 0),
            (MEMORY, 16, indirect, 0),
        ];
        for queue in self.prompt_queues() {
            let mut running = self.start();
            for (gpa, len, flags, next) in bad {
                running.queues[queue].set_descriptor(0, gpa, len, flags, next);
                running.queues[queue].offer_head(0);
                running.driver.kick(queue as u32);
                let used = running.driver.wait_used(&mut running.queues[queue]);
                assert_eq!(used, (0, 0), "queue {queue}, descriptor {gpa:#x} {len:#x} {flags} {next}");
            }
            self.assert_serves(&mut running);
        }
    }

    fn an_index_that_jumps_needs_a_reset(&self) {
        for queue in self.prompt_queues() {
            for jump in [QUEUE_SIZE + 1, u16::MAX] {
                let mut running = self.start();
                let index = running.queues[queue].avail_index().wrapping_add(jump);
                running.queues[queue].set_avail_index(index);
                running.driver.kick(queue as u32);
                let failed = || running.driver.status() & status::DEVICE_NEEDS_RESET != 0;
                running.driver.wait_until("the device to need a reset", failed);
                self.restart(&mut running);
                self.assert_serves(&mut running);
            }
        }
    }

    fn a_reset_at_any_time_leaves_it_whole(&self) {
        let mut running = self.start();
        for round in 0..50 {
            for queue in 0..running.queues.len() {
                for _ in 0..QUEUE_SIZE {
                    running.queues[queue].offer(&[Buffer::writable(BUFFER, 2048)]);
                }
                running.driver.kick(queue as u32);
            }
            thread::sleep(Duration::from_micros(round * 5));
            running.driver.write(mmio::STATUS, 0);
            assert_eq!(running.driver.status(), 0);
            let used: Vec<_> = running.queues.iter().map(DriverQueue::used_index).collect();
            thread::sleep(Duration::from_micros(200));
            let later: Vec<_> = running.queues.iter().map(DriverQueue::used_index).collect();
            assert_eq!(used, later, "a chain was completed after the reset");
            self.restart(&mut running);
        }
        self.assert_serves(&mut running);
    }

    fn memory_that_changes_meanwhile_is_survived(&self) {
        let mut running = self.start();
        let stop = AtomicBool::new(false);
        let memory = running.memory.clone();
        let rings: Vec<_> = running.queues.iter().map(|queue| queue.config().desc_table.0).collect();
        thread::scope(|scope| {
            scope.spawn(|| scribble(&memory, &rings, &stop));
            for round in 0..400u32 {
                for (index, queue) in (0u32..).zip(&mut running.queues) {
                    queue.offer(&[Buffer::readable(BUFFER, 64), Buffer::writable(BUFFER + 0x100, 513)]);
                    running.driver.kick(index);
                }
                if round % 20 == 0 {
                    running.restart(self.features);
                }
            }
            stop.store(true, Ordering::Release);
        });
        running.restart(self.features);
        self.assert_serves(&mut running);
    }

    fn pause_and_resume_lose_nothing(&self) {
        let mut running = self.start();
        for _ in 0..20 {
            running.driver.transport().pause(MmioDriver::PATIENCE).expect("nothing is in flight for long");
            running.driver.transport().resume();
            self.assert_serves(&mut running);
        }
        running.driver.transport().close();
        running.driver.kick(0);
        running.driver.write(mmio::STATUS, 0);
    }

    /// Cuts its life in two, again and again: saved, dropped, built anew, and on.
    fn one_that_was_saved_goes_on_as_another(&self) {
        let mut running = self.start();
        for round in 0..20 {
            if round % 2 == 1 {
                // Taken, perhaps, and put back.
                for queue in 0..running.queues.len() {
                    running.driver.kick(queue as u32);
                }
            }
            let transport = running.driver.transport();
            transport.pause(MmioDriver::PATIENCE).expect("nothing is in flight for long");
            let state = match transport.save() {
                Ok(state) => state,
                // A device may be one that cannot be saved; it says so each time.
                Err(error) => return assert_eq!(error.kind(), ErrorKind::InvalidState, "{error:?}"),
            };
            let io_thread = IoThread::new("conformance").expect("the host gives a thread");
            let restored = MmioTransport::restore((self.make)(), running.memory.clone(), &io_thread, &state);
            running.driver = MmioDriver::new(restored.expect("the state is the device's own"));
            let again = running.driver.transport();
            assert_eq!(again.save().expect("it stands still"), state, "what is saved again is the same");
            again.resume();
            assert_eq!(running.driver.status() & status::DEVICE_NEEDS_RESET, 0, "the device needs a reset");
            (self.serves)(&running.driver, &mut running.queues);
        }
    }

    /// Those whose buffers are looked at as soon as they are there.
    fn prompt_queues(&self) -> Vec<usize> {
        (0..self.start().queues.len()).filter(|queue| !self.quiet.contains(queue)).collect()
    }

    fn start(&self) -> Running {
        let memory = patterned_memory(MEMORY);
        let device = (self.make)();
        let queues = device.info().queue_sizes.len();
        let io_thread = IoThread::new("conformance").expect("the host gives a thread");
        let transport = MmioTransport::new(device, memory.clone(), &io_thread).expect("the device is well-formed");
        let mut running = Running { driver: MmioDriver::new(transport), queues: lay_out(&memory, queues), memory };
        self.restart(&mut running);
        running
    }

    fn restart(&self, running: &mut Running) {
        running.restart(self.features);
        (self.prepare)(&running.driver, &mut running.queues);
    }

    fn assert_serves(&self, running: &mut Running) {
        assert_eq!(running.driver.status() & status::DEVICE_NEEDS_RESET, 0, "the device needs a reset");
        self.restart(running);
        (self.serves)(&running.driver, &mut running.queues);
    }
}

impl Running {
    fn restart(&mut self, features: u64) {
        // The old rings must not be written again before the device has let go of them.
        self.driver.write(mmio::STATUS, 0);
        self.queues = lay_out(&self.memory, self.queues.len());
        self.driver.bring_up(BASE | features, &self.queues.iter().collect::<Vec<_>>());
    }
}

fn lay_out(memory: &GuestMemory, count: usize) -> Vec<DriverQueue> {
    (0..count as u64).map(|index| DriverQueue::new(memory, GuestAddress(0x1000 + index * 0x1000), QUEUE_SIZE)).collect()
}

/// Another vCPU that changes descriptors and rings while the device reads them.
fn scribble(memory: &GuestMemory, rings: &[u64], stop: &AtomicBool) {
    let mut random = 0x9e37_79b9_7f4a_7c15u64;
    while !stop.load(Ordering::Acquire) {
        for ring in rings {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            // The descriptors mostly, the rings behind them seldom.
            let span = if random.is_multiple_of(16) { 0x200 } else { 0x100 };
            let at = ring + (random >> 8) % span;
            memory.write(GuestAddress(at), &[(random >> 32) as u8]).expect("the queue lies in the memory");
        }
    }
}
