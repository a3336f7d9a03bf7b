//! Once it runs, the I/O path allocates nothing. Alone in its program, since it counts allocations.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use vmcell::block::{DiskBackend, DiskInfo, Done, FileBackend, Operation, Tag};
use vmcell::event::{Event, Interest, Io, Token, Wants};
use vmcell::net::{Delivery, Need, NicBackend, NicInfo, RxBatch, TxBatch};
use vmcell::testing::{Buffer, DriverQueue, MmioDriver, memory_disk, patterned_memory};
use vmcell::virtio::{MmioTransport, VirtioDevice};
use vmcell::{Disk, GuestAddress, GuestMemory, IoThread, Nic};

/// Counts the allocations of I/O threads; those of the test itself are its own.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static COUNTS: Cell<bool> = const { Cell::new(false) };
}

// SAFETY: passes everything on to the system's allocator.
#[allow(unsafe_code, reason = "an allocator is unsafe to write")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if COUNTS.try_with(Cell::get).unwrap_or(false) {
            ALLOCATIONS.fetch_add(1, Ordering::SeqCst);
        }
        // SAFETY: as the caller vouches.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as the caller vouches.
        unsafe { System.dealloc(pointer, layout) };
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Has the thread that calls it counted.
fn count_this_thread() {
    COUNTS.set(true);
}

/// Runs the load once to warm it up, then again, and says how often I/O threads allocated then.
fn allocations(mut load: impl FnMut()) -> u64 {
    load();
    let before = ALLOCATIONS.load(Ordering::SeqCst);
    assert!(before > 0, "warming up was not counted");
    load();
    ALLOCATIONS.load(Ordering::SeqCst) - before
}

/// A NIC on a socket that keeps packets apart, as a TAP device does.
struct Wire {
    socket: Arc<UnixDatagram>,
    token: Option<Token>,
}

impl NicBackend for Wire {
    fn info(&self) -> NicInfo {
        NicInfo::default()
    }

    fn attach(&mut self, io: &mut Io) -> vmcell::Result<()> {
        count_this_thread();
        self.token = Some(io.token());
        Ok(())
    }

    fn receive(&mut self, io: &mut Io, frames: &mut RxBatch) {
        while matches!(frames.receive_from(io, &self.socket), Ok(Delivery::Delivered)) {}
    }

    fn send(&mut self, io: &mut Io, frames: &mut TxBatch) {
        while let Some(frame) = frames.next(io) {
            if frame.send_to(&self.socket).is_err() {
                return;
            }
            frames.done();
        }
    }

    fn wants(&self, need: Need, wants: &mut Wants) {
        let interest = match (need.room, need.backlog) {
            (true, true) => Interest::Both,
            (true, false) => Interest::Readable,
            (false, true) => Interest::Writable,
            (false, false) => return,
        };
        if let Some(token) = self.token {
            wants.descriptor(token, &self.socket, interest);
        }
    }
}

/// A disk on a file, on a thread that is counted.
struct Counted(FileBackend);

impl DiskBackend for Counted {
    fn info(&self) -> DiskInfo {
        self.0.info()
    }

    fn attach(&mut self, io: &mut Io) -> vmcell::Result<()> {
        count_this_thread();
        self.0.attach(io)
    }

    fn submit(&mut self, io: &mut Io, tag: Tag, operation: Operation) -> Result<(), Operation> {
        self.0.submit(io, tag, operation)
    }

    fn commit(&mut self, io: &mut Io) {
        self.0.commit(io);
    }

    fn completed(&mut self, io: &mut Io) -> Option<Done> {
        self.0.completed(io)
    }

    fn cancel(&mut self, io: &mut Io) {
        self.0.cancel(io);
    }

    fn refresh(&mut self, io: &mut Io) {
        self.0.refresh(io);
    }

    fn wants(&self, wants: &mut Wants) {
        self.0.wants(wants);
    }

    fn woken(&mut self, io: &mut Io, event: &Event) {
        self.0.woken(io, event);
    }
}

struct Rig {
    memory: GuestMemory,
    driver: MmioDriver,
    queues: Vec<DriverQueue>,
}

fn rig(device: Box<dyn VirtioDevice>, queues: u64) -> Rig {
    let memory = patterned_memory(4 << 20);
    let io_thread = IoThread::new("steady").expect("a thread");
    let transport = MmioTransport::new(device, memory.clone(), &io_thread).expect("a transport");
    let driver = MmioDriver::new(transport);
    let queue = |index| DriverQueue::new(&memory, GuestAddress(0x1_0000 + index * 0x4000), 64);
    let queues: Vec<_> = (0..queues).map(queue).collect();
    driver.bring_up(driver.offered(), &queues.iter().collect::<Vec<_>>());
    Rig { memory, driver, queues }
}

#[test]
fn disk_requests_and_frames_allocate_nothing() {
    disk_requests_allocate_nothing();
    frames_allocate_nothing();
    frames_of_several_pairs_allocate_nothing();
}

fn disk_requests_allocate_nothing() {
    let backend = Counted(FileBackend::new(memory_disk(1 << 20)).expect("a backend"));
    let mut rig = rig(Disk::backend(backend).into_device().expect("a device"), 1);
    let header = |gpa: u64, kind: u32| {
        rig.memory.write(GuestAddress(gpa), &[&kind.to_le_bytes()[..], &[0; 12]].concat()).expect("RAM");
    };
    header(0x8000, 0);
    header(0x8010, 1);
    let (driver, queue) = (&rig.driver, &mut rig.queues[0]);
    let count = allocations(|| {
        for round in 0..2000u64 {
            for slot in 0..8u64 {
                let data = 0x10_0000 + slot * 0x1_0000;
                let status = Buffer::writable(0x9000 + slot, 1);
                if (round + slot) % 2 == 0 {
                    queue.offer(&[Buffer::readable(0x8000, 16), Buffer::writable(data, 4096), status]);
                } else {
                    let halves = [Buffer::readable(data, 1000), Buffer::readable(data + 5000, 3096)];
                    queue.offer(&[Buffer::readable(0x8010, 16), halves[0], halves[1], status]);
                }
            }
            driver.kick(0);
            (0..8).for_each(|_| _ = driver.wait_used(queue));
        }
    });
    assert_eq!(count, 0, "allocations for 16,000 requests of a disk");
}

fn frames_allocate_nothing() {
    let (wire, socket) = UnixDatagram::pair().expect("the host gives sockets");
    socket.set_nonblocking(true).expect("a socket");
    let nic = Nic::backend(Wire { socket: Arc::new(socket), token: None });
    let mut rig = rig(nic.into_device().expect("a device"), 3);
    rig.memory.write(GuestAddress(0x8000), &[0; 12]).expect("RAM");
    let driver = &rig.driver;
    let [rx, tx, _] = &mut rig.queues[..] else { unreachable!("three were made") };
    let mut bytes = [0; 2000];
    let count = allocations(|| {
        for _ in 0..2000u64 {
            for slot in 0..4u64 {
                rx.offer(&[Buffer::writable(0x10_0000 + slot * 0x1000, 2048)]);
                tx.offer(&[Buffer::readable(0x8000, 12), Buffer::readable(0x20_0000, 60)]);
            }
            driver.kick(0);
            driver.kick(1);
            for _ in 0..4 {
                wire.send(&[7; 1000]).expect("a socket");
                assert_eq!(driver.wait_used(rx).1, 1000);
                driver.wait_used(tx);
                wire.recv(&mut bytes).expect("a frame");
            }
        }
    });
    assert_eq!(count, 0, "allocations for 8,000 frames each way");
}

fn frames_of_several_pairs_allocate_nothing() {
    let (mut backends, mut wires) = (Vec::new(), Vec::new());
    for _ in 0..2 {
        let (wire, socket) = UnixDatagram::pair().expect("the host gives sockets");
        socket.set_nonblocking(true).expect("a socket");
        backends.push(Box::new(Wire { socket: Arc::new(socket), token: None }) as Box<dyn NicBackend>);
        wires.push(wire);
    }
    let mut rig = rig(Nic::backends(backends).into_device().expect("a device"), 5);
    rig.memory.write(GuestAddress(0x8000), &[0; 12]).expect("RAM");
    let (driver, queues) = (&rig.driver, &mut rig.queues);
    let mut bytes = [0; 2000];
    let count = allocations(|| {
        for round in 0..1000u64 {
            // One pair gets the frames of both wires, then each those of its own.
            let pairs = round % 2 + 1;
            rig.memory.write(GuestAddress(0x9000), &[4, 0, pairs as u8, 0]).expect("RAM");
            queues[4].offer(&[Buffer::readable(0x9000, 4), Buffer::writable(0x9010, 1)]);
            driver.kick(4);
            assert_eq!(driver.wait_used(&mut queues[4]).1, 1);
            for (wire, socket) in wires.iter().enumerate() {
                let pair = wire % pairs as usize;
                queues[2 * pair].offer(&[Buffer::writable(0x10_0000 + pair as u64 * 0x1000, 2048)]);
                driver.kick(2 * pair as u32);
                socket.send(&[7; 1000]).expect("a socket");
                assert_eq!(driver.wait_used(&mut queues[2 * pair]).1, 1000);
                queues[2 * wire + 1].offer(&[Buffer::readable(0x8000, 12), Buffer::readable(0x20_0000, 60)]);
                driver.kick(2 * wire as u32 + 1);
                driver.wait_used(&mut queues[2 * wire + 1]);
                socket.recv(&mut bytes).expect("a frame");
            }
        }
    });
    assert_eq!(count, 0, "allocations for 2,000 frames each way, and 1,000 commands");
}
