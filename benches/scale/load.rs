//! Drivers, devices and an I/O thread, and how long they take for requests.

use std::hint;
use std::sync::atomic::{Ordering, fence};
use std::time::{Duration, Instant};

use vmcell::event::Io;
use vmcell::net::{NicBackend, NicInfo, RxBatch, TxBatch};
use vmcell::testing::{Buffer, DriverQueue, MmioDriver, memory_disk, patterned_memory};
use vmcell::virtio::{MmioTransport, VirtioDevice};
use vmcell::{Disk, GuestAddress, GuestMemory, IoThread, Nic};

use crate::cpu::Clock;

/// For how long a point is measured.
const TIME: Duration = Duration::from_millis(200);
/// Requests in flight at each busy disk.
const DEPTH: u64 = 4;
/// The size of a read.
const LEN: u32 = 4096;
/// Where each device's queues and buffers are, behind the last device's.
const SPACE: u64 = 0x4_0000;

/// What is on the I/O thread.
#[derive(Clone, Copy)]
pub struct Load {
    pub busy: usize,
    pub idle_disks: usize,
    pub idle_nics: usize,
    /// Of each disk.
    pub queues: usize,
    /// Each busy disk has a memory of its own, as in a VM of its own.
    pub apart: bool,
}

/// What a request took, over all busy disks together.
pub struct Measured {
    pub nanos: f64,
    pub cpu_nanos: f64,
}

impl Load {
    /// One busy disk, and nothing else.
    pub fn one() -> Self {
        Self { busy: 1, idle_disks: 0, idle_nics: 0, queues: 1, apart: false }
    }
}

/// A disk, and the driver that keeps it busy.
struct Busy {
    driver: MmioDriver,
    queue: DriverQueue,
    base: u64,
    in_flight: u64,
    next: u64,
}

/// A card on which nothing ever happens.
struct Quiet;

impl NicBackend for Quiet {
    fn info(&self) -> NicInfo {
        NicInfo::default()
    }

    fn receive(&mut self, _io: &mut Io, _frames: &mut RxBatch) {}

    fn send(&mut self, _io: &mut Io, _frames: &mut TxBatch) {}
}

pub fn measure(load: &Load) -> Measured {
    let io_thread = IoThread::new("scale-io").expect("the host gives a thread");
    let devices = (load.busy + load.idle_disks + load.idle_nics) as u64;
    let shared = patterned_memory((devices + 1) * SPACE);
    let memory = |_| if load.apart { patterned_memory(2 * SPACE) } else { shared.clone() };
    let base = |index: usize| if load.apart { SPACE } else { SPACE * (index as u64 + 1) };
    let mut busy: Vec<Busy> =
        (0..load.busy).map(|index| Busy::new(memory(index), base(index), load.queues, &io_thread)).collect();
    let first_idle = load.busy;
    let idle: Vec<MmioDriver> = (0..load.idle_disks + load.idle_nics)
        .map(|index| {
            let device = if index < load.idle_disks { disk(load.queues) } else { card() };
            idle(device, &shared, SPACE * ((first_idle + index) as u64 + 1), &io_thread)
        })
        .collect();
    keep_busy(&mut busy, TIME / 4);
    let clock = Clock::of_thread("scale-io").expect("the I/O thread is there");
    let (cpu, began) = (clock.read(), Instant::now());
    let done = keep_busy(&mut busy, TIME).max(1) as f64;
    let (nanos, cpu_nanos) = (began.elapsed().as_nanos() as f64, (clock.read() - cpu).as_nanos() as f64);
    drop(idle);
    Measured { nanos: nanos / done, cpu_nanos: cpu_nanos / done }
}

fn keep_busy(busy: &mut [Busy], time: Duration) -> u64 {
    let began = Instant::now();
    let mut done = 0;
    while began.elapsed() < time {
        for disk in &mut *busy {
            done += disk.step();
        }
    }
    done
}

fn disk(queues: usize) -> Box<dyn VirtioDevice> {
    let disk = Disk::from_file(memory_disk(1 << 20)).expect("a disk").queues(queues as u16);
    disk.into_device().expect("a device")
}

fn card() -> Box<dyn VirtioDevice> {
    Nic::backend(Quiet).into_device().expect("a device")
}

fn idle(device: Box<dyn VirtioDevice>, memory: &GuestMemory, base: u64, io_thread: &IoThread) -> MmioDriver {
    let count = device.info().queue_sizes.len() as u64;
    let driver = MmioDriver::new(MmioTransport::new(device, memory.clone(), io_thread).expect("a transport"));
    bring_up(&driver, memory, base, count);
    driver
}

fn bring_up(driver: &MmioDriver, memory: &GuestMemory, base: u64, count: u64) -> Vec<DriverQueue> {
    let queue = |index| DriverQueue::new(memory, GuestAddress(base + index * 0x1000), 16);
    let queues: Vec<DriverQueue> = (0..count).map(queue).collect();
    driver.bring_up(driver.offered(), &queues.iter().collect::<Vec<_>>());
    queues
}

impl Busy {
    fn new(memory: GuestMemory, base: u64, queues: usize, io_thread: &IoThread) -> Self {
        let transport = MmioTransport::new(disk(queues), memory.clone(), io_thread).expect("a transport");
        let driver = MmioDriver::new(transport);
        let queue = bring_up(&driver, &memory, base, queues as u64).swap_remove(0);
        memory.write(GuestAddress(base + 0x2_0000), &[0; 16]).expect("RAM");
        Self { driver, queue, base, in_flight: 0, next: 0 }
    }

    /// Takes what is done and offers as much anew; says how many were done.
    fn step(&mut self) -> u64 {
        let mut done = 0;
        while self.queue.take_used().is_some() {
            done += 1;
        }
        self.in_flight -= done;
        let before = self.queue.avail_index();
        while self.in_flight < DEPTH {
            self.offer();
        }
        self.ring(before);
        hint::spin_loop();
        done
    }

    fn offer(&mut self) {
        let slot = self.next % DEPTH;
        self.next += 1;
        self.in_flight += 1;
        let data = Buffer::writable(self.base + 0x3_0000 + slot * u64::from(LEN), LEN);
        let status = Buffer::writable(self.base + 0x2_1000 + slot, 1);
        self.queue.offer(&[Buffer::readable(self.base + 0x2_0000, 16), data, status]);
    }

    /// Rings, if the device asks for it.
    fn ring(&self, before: u16) {
        fence(Ordering::SeqCst);
        let (now, event) = (self.queue.avail_index(), self.queue.avail_event());
        if now.wrapping_sub(event).wrapping_sub(1) < now.wrapping_sub(before) {
            self.driver.kick(0);
        }
    }
}
