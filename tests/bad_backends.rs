//! Disks on backends that do what none may, beside a good one on the same thread.

#[path = "support/misbehaving.rs"]
mod misbehaving;

use std::time::{Duration, Instant};

use misbehaving::{Call, Leash, Manner, Misbehaving};
use vmcell::block::FileBackend;
use vmcell::testing::{Buffer, DriverQueue, MmioDriver, memory_disk, patterned_memory};
use vmcell::virtio::MmioTransport;
use vmcell::virtio::spec::{mmio, status};
use vmcell::{Disk, DiskHandle, ErrorKind, GuestAddress, GuestMemory, IoThread};

const DATA: u64 = 0x20000;
const STATUS: u64 = 0x30000;

/// A disk, with its driver.
struct Rig {
    driver: MmioDriver,
    queue: DriverQueue,
    memory: GuestMemory,
    handle: DiskHandle,
}

fn rig(disk: Disk, io_thread: &IoThread) -> vmcell::Result<Rig> {
    let memory = patterned_memory(1 << 20);
    let handle = disk.handle();
    let driver = MmioDriver::new(MmioTransport::new(disk.into_device()?, memory.clone(), io_thread)?);
    let mut rig = Rig { driver, queue: DriverQueue::new(&memory, GuestAddress(0x1000), 64), memory, handle };
    rig.bring_up();
    Ok(rig)
}

fn bad(manner: Manner, io_thread: &IoThread) -> (Rig, Leash) {
    let (backend, leash) = Misbehaving::new(manner);
    (rig(Disk::backend(backend), io_thread).unwrap(), leash)
}

fn good(io_thread: &IoThread) -> Rig {
    rig(Disk::backend(FileBackend::new(memory_disk(1 << 20)).unwrap()), io_thread).unwrap()
}

impl Rig {
    fn bring_up(&mut self) {
        self.driver.write(mmio::STATUS, 0);
        self.queue = DriverQueue::new(&self.memory, GuestAddress(0x1000), 64);
        self.driver.bring_up(self.driver.offered(), &[&self.queue]);
    }

    /// Asks for a sector.
    fn ask(&mut self, write: bool) {
        let mut header = [0; 16];
        header[0] = write.into();
        self.memory.write(GuestAddress(0x10000), &header).unwrap();
        let data = if write { Buffer::readable(DATA, 512) } else { Buffer::writable(DATA, 512) };
        self.queue.offer(&[Buffer::readable(0x10000, 16), data, Buffer::writable(STATUS, 1)]);
        self.driver.kick(0);
    }

    /// Asks for a sector, and waits for it; says how the disk answers.
    fn run(&mut self, write: bool) -> u8 {
        self.ask(write);
        self.driver.wait_used(&mut self.queue);
        let mut answer = [0xff];
        self.memory.read(GuestAddress(STATUS), &mut answer).unwrap();
        answer[0]
    }

    fn assert_works(&mut self, why: impl std::fmt::Debug) {
        let begun = Instant::now();
        for round in 0..20 {
            self.memory.write(GuestAddress(DATA), &[round; 512]).unwrap();
            assert_eq!(self.run(true), 0, "{why:?}");
            self.memory.write(GuestAddress(DATA), &[0xff; 512]).unwrap();
            assert_eq!(self.run(false), 0, "{why:?}");
            let mut bytes = [0; 512];
            self.memory.read(GuestAddress(DATA), &mut bytes).unwrap();
            assert_eq!(bytes, [round; 512], "{why:?}");
        }
        assert!(begun.elapsed() < Duration::from_secs(2), "{why:?}: 20 rounds took {:?}", begun.elapsed());
    }

    fn needs_reset(&self) -> bool {
        self.driver.status() & status::DEVICE_NEEDS_RESET != 0
    }

    /// Ends it, in no more time than that may take.
    fn end(self, why: impl std::fmt::Debug) {
        let begun = Instant::now();
        self.driver.transport().close();
        assert!(begun.elapsed() < Duration::from_millis(100), "{why:?}: closing took {:?}", begun.elapsed());
        drop(self);
        assert!(begun.elapsed() < Duration::from_secs(1), "{why:?}: ending took {:?}", begun.elapsed());
    }
}

/// What is found out as soon as it happens, and whether the backend keeps a buffer of the guest's then.
const BREACHES: [(Manner, bool); 10] = [
    (Manner::CompletesTwice, false),
    (Manner::InventsATag, false),
    (Manner::GivesAnotherBack, false),
    (Manner::PanicsIn(Call::Submit), false),
    (Manner::PanicsIn(Call::Commit), true),
    (Manner::PanicsIn(Call::Completed), true),
    (Manner::PanicsIn(Call::Woken), true),
    (Manner::PanicsIn(Call::Wants), true),
    (Manner::PanicsIn(Call::Refresh), true),
    (Manner::PanicsIn(Call::Info), true),
];

#[test]
fn a_backend_that_breaks_a_rule_fails_its_own_disk_and_is_never_called_again() {
    for (manner, may_keep) in BREACHES {
        let io_thread = IoThread::new("shared").unwrap();
        let ((mut bad, leash), mut good) = (bad(manner, &io_thread), good(&io_thread));
        assert_eq!(bad.run(false), 0, "{manner:?}: it works at first");
        leash.let_loose();
        bad.ask(false);
        bad.handle.refresh();
        bad.driver.wait_until(&format!("{manner:?} to be found"), || bad.needs_reset());
        good.assert_works(manner);
        let calls = leash.calls();
        bad.ask(false);
        bad.handle.refresh();
        leash.wake();
        if !may_keep {
            bad.bring_up();
            bad.ask(false);
            bad.driver.wait_until("the failure again", || bad.needs_reset());
        }
        good.assert_works(manner);
        assert_eq!(leash.calls(), calls, "{manner:?}: it was called again");
        bad.end(manner);
        good.assert_works(manner);
    }
}

#[test]
fn a_backend_that_never_comes_to_an_end_leaves_its_neighbour_alone() {
    for manner in [Manner::NeverCompletes, Manner::IsFullForEver, Manner::AsksForTurnsForEver] {
        let io_thread = IoThread::new("shared").unwrap();
        let ((mut bad, leash), mut good) = (bad(manner, &io_thread), good(&io_thread));
        leash.let_loose();
        (0..10).for_each(|_| bad.ask(false));
        good.assert_works(manner);
        bad.end(manner);
        good.assert_works(manner);
    }
}

#[test]
fn a_broken_backend_that_keeps_a_buffer_holds_up_a_reset_until_the_disk_is_closed() {
    let io_thread = IoThread::new("shared").unwrap();
    let manner = Manner::InventsATagAndKeepsTheRest;
    let ((mut bad, leash), mut good) = (bad(manner, &io_thread), good(&io_thread));
    leash.let_loose();
    bad.ask(false);
    bad.driver.wait_until("the failure", || bad.needs_reset());
    std::thread::scope(|scope| {
        let vcpu = scope.spawn(|| bad.driver.write(mmio::STATUS, 0));
        good.assert_works(manner);
        assert!(!vcpu.is_finished(), "the backend may still write to the guest's memory");
        bad.driver.transport().close();
        vcpu.join().unwrap();
    });
    bad.end(manner);
    good.assert_works(manner);
}

#[test]
fn a_panic_while_the_disk_is_made_is_an_error() {
    let io_thread = IoThread::new("shared").unwrap();
    let mut good = good(&io_thread);
    let (backend, leash) = Misbehaving::new(Manner::PanicsIn(Call::Attach));
    leash.let_loose();
    let error = rig(Disk::backend(backend), &io_thread).map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Host, "{error}");
    good.assert_works("attach");
}

#[test]
fn a_panic_while_a_disk_is_cancelled_leaves_its_neighbour_alone() {
    let io_thread = IoThread::new("shared").unwrap();
    let manner = Manner::PanicsIn(Call::Cancel);
    let ((mut bad, leash), mut good) = (bad(manner, &io_thread), good(&io_thread));
    leash.let_loose();
    bad.bring_up();
    bad.driver.wait_until("the failure", || bad.needs_reset());
    good.assert_works(manner);
    bad.end(manner);
}

#[test]
fn a_buffer_that_is_touched_and_given_back_after_a_reset_holds_the_reset_up_and_nothing_else() {
    let io_thread = IoThread::new("shared").unwrap();
    let ((mut bad, leash), mut good) = (bad(Manner::NeverCompletes, &io_thread), good(&io_thread));
    leash.let_loose();
    (0..3).for_each(|_| bad.ask(false));
    bad.driver.wait_until("the operations", || leash.kept() == 3);
    std::thread::scope(|scope| {
        let vcpu = scope.spawn(|| bad.driver.write(mmio::STATUS, 0));
        std::thread::sleep(Duration::from_millis(20));
        assert!(!vcpu.is_finished(), "the guest could use memory again that the disk still writes to");
        leash.touch(0x77);
        good.assert_works("held");
        leash.release();
        vcpu.join().unwrap();
    });
    // From now on it keeps what it gets only until it is asked.
    assert_eq!(bad.queue.take_used(), None, "an operation of a past life was answered in this one");
    bad.bring_up();
    assert_eq!(bad.run(false), 0);
    good.assert_works("released");
    bad.end("released");
}

#[test]
fn a_buffer_that_outlives_its_machine_keeps_the_memory_mapped() {
    let io_thread = IoThread::new("shared").unwrap();
    let (mut bad, leash) = bad(Manner::NeverCompletes, &io_thread);
    leash.let_loose();
    bad.ask(false);
    bad.driver.wait_until("the operation", || leash.kept() == 1);
    bad.end("kept");
    // All other handles to the memory are gone.
    leash.touch(0x77);
    assert_eq!(leash.kept(), 1);
}
