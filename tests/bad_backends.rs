//! Disks on backends that do what none may, beside a good one on the same thread.

#[path = "support/misbehaving.rs"]
mod misbehaving;

use std::time::{Duration, Instant};

use misbehaving::{Call, Leash, Manner, Misbehaving};
use vmcell::block::{DiskBackend, DiskInfo, Done, FileBackend, Operation, Tag};
use vmcell::event::Io;
use vmcell::testing::{Buffer, DriverQueue, MmioDriver, memory_disk, patterned_memory};
use vmcell::virtio::spec::{mmio, status};
use vmcell::virtio::{FailureCause, MmioTransport};
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

const CALLS: [Call; 9] = [
    Call::Info,
    Call::Submit,
    Call::Commit,
    Call::Completed,
    Call::Cancel,
    Call::Refresh,
    Call::Wants,
    Call::Woken,
    Call::Status,
];

/// Ways to end a backend, and what the host program is told.
fn breaches() -> Vec<(Manner, FailureCause, String)> {
    let rule = |what: &str| format!("the backend broke a rule: it completed {what}");
    let panics = |call: Call| {
        let said = format!("the backend panicked: told to panic in {call:?}");
        (Manner::PanicsIn(call), FailureCause::Panicked, said)
    };
    let gives_up = |call: Call| {
        let said = format!("the backend gave up: told to in {call:?}");
        (Manner::GivesUpIn(call), FailureCause::GaveUp, said)
    };
    let rules = [
        (Manner::CompletesTwice, "an operation that it does not have"),
        (Manner::InventsATag, "an operation that it does not have"),
        (Manner::InventsATagAndKeepsTheRest, "an operation that it does not have"),
        (Manner::GivesAnotherBack, "another operation than it was given"),
    ];
    let rules = rules.map(|(manner, what)| (manner, FailureCause::BrokeRule, rule(what)));
    let lent = CALLS.into_iter().filter(|call| !matches!(call, Call::Info | Call::Wants | Call::Status));
    rules.into_iter().chain(CALLS.map(panics)).chain(lent.map(gives_up)).collect()
}

/// Has everything of the disk called that is called while it lives.
fn provoke(bad: &mut Rig, leash: &Leash) {
    bad.handle.refresh();
    leash.wake();
    // The reset that this begins with is a cancel.
    bad.bring_up();
    bad.ask(false);
}

#[test]
fn a_backend_that_ends_itself_is_never_called_again_but_dropped_and_the_host_program_is_told_why() {
    for (manner, cause, message) in breaches() {
        let io_thread = IoThread::new("shared").unwrap();
        let ((mut bad, leash), mut good) = (bad(manner, &io_thread), good(&io_thread));
        assert_eq!(bad.run(false), 0, "{manner:?}: it works at first");
        assert_eq!(bad.driver.transport().failure(), None);
        leash.let_loose();
        provoke(&mut bad, &leash);
        bad.driver.wait_until(&format!("{manner:?} to be found"), || bad.needs_reset());
        good.assert_works(manner);
        let failure = bad.driver.transport().failure().unwrap();
        assert_eq!((failure.cause, failure.message, failure.needs_reset), (cause, message.clone(), true), "{manner:?}");
        bad.driver.wait_until(&format!("{manner:?} to be dropped"), || leash.dropped() == 1);
        let calls = leash.calls();
        // It holds up neither a pause nor a reset, and a driver that begins anew hears that nothing has changed.
        bad.driver.transport().pause(Duration::from_secs(5)).unwrap();
        bad.driver.transport().resume();
        provoke(&mut bad, &leash);
        bad.driver.wait_until("the failure again", || bad.needs_reset());
        good.assert_works(manner);
        let failure = bad.driver.transport().failure().unwrap();
        assert_eq!((failure.cause, failure.message), (cause, message), "{manner:?}");
        let metrics = bad.driver.transport().metrics();
        assert_eq!((metrics.failures, metrics.needs_reset), (failure.count, true));
        assert_eq!((leash.calls(), leash.dropped()), (calls, 1), "{manner:?}: it was called again");
        bad.end(manner);
        good.assert_works(manner);
    }
}

#[test]
fn a_backend_that_ends_nothing_is_called_by_everything_and_has_not_failed() {
    let io_thread = IoThread::new("shared").unwrap();
    let (mut bad, leash) = bad(Manner::PanicsIn(Call::Attach), &io_thread);
    leash.let_loose();
    provoke(&mut bad, &leash);
    bad.driver.wait_used(&mut bad.queue);
    let all = CALLS.into_iter().chain([Call::Attach, Call::Metrics]);
    all.for_each(|call| bad.driver.wait_until(&format!("{call:?}"), || leash.was_called(call)));
    assert_eq!(bad.run(false), 0);
    assert_eq!((bad.driver.transport().failure(), leash.dropped()), (None, 0));
    assert_eq!(bad.driver.transport().metrics().failures, 0);
    bad.end("good");
    assert_eq!(leash.dropped(), 1);
}

#[test]
fn a_disk_whose_backend_is_gone_gets_another_one_and_works_after_a_reset() {
    let io_thread = IoThread::new("shared").unwrap();
    let (mut bad, leash) = bad(Manner::PanicsIn(Call::Submit), &io_thread);
    leash.let_loose();
    bad.ask(false);
    bad.driver.wait_until("the failure", || bad.needs_reset());
    let (next, _) = Misbehaving::new(Manner::NeverCompletes);
    bad.handle.replace(Disk::backend(next), Duration::from_secs(5)).unwrap();
    assert!(bad.needs_reset());
    assert_eq!(leash.dropped(), 1);
    bad.bring_up();
    assert_eq!(bad.run(false), 0);
    let failure = bad.driver.transport().failure().unwrap();
    assert_eq!((failure.count, failure.needs_reset), (1, false), "what was is still told");
}

#[test]
fn a_backend_that_takes_its_time_to_be_dropped_holds_up_nobody_but_its_own_end() {
    struct Slow(Misbehaving, std::sync::mpsc::Receiver<()>);

    impl Drop for Slow {
        fn drop(&mut self) {
            let _ = self.1.recv();
        }
    }

    impl DiskBackend for Slow {
        fn info(&self) -> DiskInfo {
            self.0.info()
        }

        fn submit(&mut self, io: &mut Io, tag: Tag, operation: Operation) -> Result<(), Operation> {
            self.0.submit(io, tag, operation)
        }

        fn completed(&mut self, io: &mut Io) -> Option<Done> {
            self.0.completed(io)
        }
    }

    let io_thread = IoThread::new("shared").unwrap();
    let mut good = good(&io_thread);
    let (backend, leash) = Misbehaving::new(Manner::InventsATagAndKeepsTheRest);
    let (release, released) = std::sync::mpsc::channel();
    let mut bad = rig(Disk::backend(Slow(backend, released)), &io_thread).unwrap();
    leash.let_loose();
    bad.ask(false);
    bad.driver.wait_until("the failure", || bad.needs_reset());
    std::thread::scope(|scope| {
        let vcpu = scope.spawn(|| bad.driver.write(mmio::STATUS, 0));
        good.assert_works("slow");
        assert!(!vcpu.is_finished(), "the backend still has a buffer in the guest's memory");
        bad.driver.transport().close();
        vcpu.join().unwrap();
    });
    std::thread::scope(|scope| {
        let ends = scope.spawn(|| drop(bad));
        good.assert_works("slow");
        assert!(!ends.is_finished() && leash.dropped() == 0, "what the host program gave is still in use");
        release.send(()).unwrap();
        ends.join().unwrap();
        assert_eq!(leash.dropped(), 1);
    });
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
fn a_panic_while_the_disk_is_made_is_an_error() {
    for call in [Call::Info, Call::Attach, Call::Status, Call::Metrics] {
        let io_thread = IoThread::new("shared").unwrap();
        let mut good = good(&io_thread);
        let (backend, leash) = Misbehaving::new(Manner::PanicsIn(call));
        leash.let_loose();
        let error = rig(Disk::backend(backend), &io_thread).map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Disk, "{error}");
        let why = format!("the backend panicked: told to panic in {call:?}");
        assert!(error.to_string().ends_with(&why), "{error}");
        assert_eq!(leash.dropped(), 1);
        good.assert_works(call);
    }
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
