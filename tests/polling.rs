//! An I/O thread that looks for requests before it sleeps: what that saves, and that it costs nothing when nothing comes.

use std::sync::atomic::{AtomicU32, Ordering, fence};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use vmcell::block::{DiskBackend, DiskInfo, Done, Operation, Tag};
use vmcell::event::{Event, Io, Waker, Wants};
use vmcell::testing::{Buffer, DriverQueue, MmioDriver, memory_disk, patterned_memory};
use vmcell::virtio::MmioTransport;
use vmcell::{Disk, GuestAddress, GuestMemory, IoThread};

const PATIENCE: Duration = Duration::from_secs(10);
/// Well within the time for which a thread looks.
const SOON: Duration = Duration::from_micros(10);

struct Rig {
    memory: GuestMemory,
    driver: MmioDriver,
    queue: DriverQueue,
}

impl Rig {
    fn new(io_thread: &IoThread) -> Self {
        let memory = patterned_memory(1 << 20);
        let device = Disk::from_file(memory_disk(4096)).unwrap().into_device().unwrap();
        let driver = MmioDriver::new(MmioTransport::new(device, memory.clone(), io_thread).unwrap());
        let queue = DriverQueue::new(&memory, GuestAddress(0x1_0000), 64);
        driver.bring_up(driver.offered(), &[&queue]);
        memory.write(GuestAddress(0x8000), &[0; 16]).unwrap();
        Self { memory, driver, queue }
    }

    /// Reads a sector, and rings only if the device asks for it; says whether it did.
    fn read(&mut self) -> bool {
        let before = self.queue.avail_index();
        let data = Buffer::writable(0x2_0000, 512);
        self.queue.offer(&[Buffer::readable(0x8000, 16), data, Buffer::writable(0x9000, 1)]);
        fence(Ordering::SeqCst);
        let rings = self.queue.avail_event() == before;
        if rings {
            self.driver.kick(0);
        }
        let began = Instant::now();
        while self.queue.take_used().is_none() {
            assert!(began.elapsed() < PATIENCE, "the request is lost");
            std::hint::spin_loop();
        }
        let mut status = [0xff];
        self.memory.read(GuestAddress(0x9000), &mut status).unwrap();
        assert_eq!(status, [0]);
        rings
    }
}

/// How long the threads of this process that still live were ready to run and had no CPU.
fn time_without_cpu() -> Duration {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let nanos = tasks.filter_map(|task| {
        let text = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split(' ').nth(1)?.parse::<u64>().ok()
    });
    Duration::from_nanos(nanos.sum())
}

#[test]
fn requests_that_come_soon_are_found_without_a_doorbell() {
    let (began, waited) = (Instant::now(), time_without_cpu());
    loop {
        let io_thread = IoThread::new("polls").unwrap();
        let mut rig = Rig::new(&io_thread);
        let rung = (0..5000)
            .filter(|_| {
                // So that the thread has nothing to do meanwhile: what comes at once is found in the same turn, without a look.
                let begun = Instant::now();
                while begun.elapsed() < SOON {
                    std::hint::spin_loop();
                }
                rig.read()
            })
            .count();
        let stats = io_thread.polling_stats();
        assert!(stats.finds <= stats.looks, "{stats:?}");
        if rung < 2500 && stats.finds > 1000 {
            return;
        }
        let (elapsed, waited) = (began.elapsed(), time_without_cpu().saturating_sub(waited));
        if elapsed < Duration::from_secs(10) {
            continue;
        }
        // If others use all CPUs, a thread that looks keeps the driver from running, and so it learns to sleep: not seen then.
        assert!(waited > elapsed / 10, "{rung} of 5000 requests were rung for: {stats:?}");
        return;
    }
}

#[test]
fn looking_costs_little_if_the_driver_has_to_share_the_cpu() {
    // Threads that are made from now on inherit it, the I/O thread among them.
    let own = rustix::thread::sched_getaffinity(None).unwrap();
    let cpu = (0..rustix::thread::CpuSet::MAX_CPU).find(|cpu| own.is_set(*cpu)).unwrap();
    let mut one = rustix::thread::CpuSet::new();
    one.set(cpu);
    rustix::thread::sched_setaffinity(None, &one).unwrap();
    let io_thread = IoThread::new("shares").unwrap();
    let mut rig = Rig::new(&io_thread);
    (0..5000).for_each(|_| _ = rig.read());
    let stats = io_thread.polling_stats();
    assert!(stats.time < Duration::from_millis(10), "{stats:?} for 5000 requests");
}

#[test]
fn a_thread_that_is_not_to_look_is_rung_for_each_time() {
    let io_thread = IoThread::new("sleeps").unwrap();
    io_thread.set_polling(Duration::ZERO);
    let mut rig = Rig::new(&io_thread);
    let rung = (0..500)
        .filter(|_| {
            std::thread::sleep(Duration::from_micros(100));
            rig.read()
        })
        .count();
    // A loaded host may not have let it go to sleep in between.
    assert!(rung > 250, "{rung} of 500 requests were rung for");
    assert_eq!(io_thread.polling_stats().looks, 0);
}

#[test]
fn a_thread_that_is_seldom_needed_does_not_look() {
    let io_thread = IoThread::new("learns").unwrap();
    let mut rig = Rig::new(&io_thread);
    let mut pause_and_read = || {
        std::thread::sleep(Duration::from_millis(2));
        rig.read();
    };
    (0..20).for_each(|_| pause_and_read());
    let before = io_thread.polling_stats();
    (0..50).for_each(|_| pause_and_read());
    let after = io_thread.polling_stats();
    let looked = after.time.saturating_sub(before.time);
    assert!(looked < Duration::from_millis(5), "{looked:?} for 50 requests in 100 ms");
}

/// Takes one operation, and has no room for others until it is let go.
struct Narrow {
    held: Option<(Tag, Operation)>,
    let_go: bool,
    turns: Arc<AtomicU32>,
    waker: Arc<OnceLock<Waker>>,
}

impl DiskBackend for Narrow {
    fn info(&self) -> DiskInfo {
        DiskInfo::new(4096)
    }

    fn attach(&mut self, io: &mut Io) -> vmcell::Result<()> {
        let token = io.token();
        let _ = self.waker.set(io.waker(token));
        Ok(())
    }

    fn submit(&mut self, _io: &mut Io, tag: Tag, operation: Operation) -> Result<(), Operation> {
        if self.held.is_some() {
            return Err(operation);
        }
        self.held = Some((tag, operation));
        Ok(())
    }

    fn completed(&mut self, _io: &mut Io) -> Option<Done> {
        let (tag, operation) = self.held.take_if(|_| self.let_go)?;
        Some(Done::new(tag, operation, Ok(())))
    }

    fn wants(&self, _wants: &mut Wants) {
        self.turns.fetch_add(1, Ordering::Relaxed);
    }

    fn woken(&mut self, _io: &mut Io, _event: &Event) {
        self.let_go = true;
    }
}

#[test]
fn a_request_that_the_disk_has_no_room_for_costs_no_cpu() {
    let (turns, waker) = (Arc::new(AtomicU32::new(0)), Arc::new(OnceLock::new()));
    let backend = Narrow { held: None, let_go: false, turns: Arc::clone(&turns), waker: Arc::clone(&waker) };
    let memory = patterned_memory(1 << 20);
    let device = Disk::backend(backend).queues(2).into_device().unwrap();
    let transport = MmioTransport::new(device, memory.clone(), &IoThread::new("narrow").unwrap()).unwrap();
    let driver = MmioDriver::new(transport);
    let mut queues = [0x1_0000, 0x1_8000].map(|base| DriverQueue::new(&memory, GuestAddress(base), 64));
    driver.bring_up(driver.offered(), &[&queues[0], &queues[1]]);
    memory.write(GuestAddress(0x8000), &[0; 16]).unwrap();
    // Both queues were found empty. Then the first one's requests take all the room.
    for (queue, count) in [(0, 2), (1, 1)] {
        std::thread::sleep(Duration::from_millis(20));
        for _ in 0..count {
            let data = Buffer::writable(0x2_0000, 512);
            queues[queue].offer(&[Buffer::readable(0x8000, 16), data, Buffer::writable(0x9000, 1)]);
        }
        driver.kick(queue as u32);
    }
    std::thread::sleep(Duration::from_millis(20));
    let before = turns.load(Ordering::Relaxed);
    std::thread::sleep(Duration::from_millis(100));
    let taken = turns.load(Ordering::Relaxed) - before;
    assert!(taken < 20, "{taken} turns in 100 ms without anything to do");
    waker.get().unwrap().wake();
    for index in [0, 0, 1] {
        driver.wait_used(&mut queues[index]);
    }
}
