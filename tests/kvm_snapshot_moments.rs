//! Snapshots and forks at bad moments.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use support::counts::Counts;
use support::{BRING_UP, DEVICE, Kernel, stores, tiny};
use vmcell::event::Io;
use vmcell::testing::{TinyGuest, memory_disk};
use vmcell::virtio::{Activation, Chain, DeviceInfo, DeviceState, Queues, VirtioDevice};
use vmcell::{Disk, ErrorKind, Exit, Status, Vm};

const LIMIT: Duration = Duration::from_secs(30);
const STOP: Duration = Duration::from_millis(100);

/// Keeps each chain that it is given, for ever.
struct Keeper {
    chains: Vec<Chain>,
    has_one: Arc<AtomicBool>,
    is_saved: bool,
}

impl VirtioDevice for Keeper {
    fn info(&self) -> DeviceInfo {
        DeviceInfo::new(42, &[8])
    }

    fn activate(&mut self, _io: &mut Io, _activation: Activation) -> vmcell::Result<()> {
        Ok(())
    }

    fn process_queue(&mut self, io: &mut Io, queues: &mut Queues, index: u16) -> vmcell::Result<()> {
        let Some(queue) = queues.get(index) else { return Ok(()) };
        while let Some(chain) = queue.pop(io)? {
            if self.is_saved {
                self.chains.push(chain);
            } else {
                queue.complete(chain, 0);
            }
            self.has_one.store(true, Ordering::SeqCst);
        }
        Ok(())
    }

    fn reset(&mut self, _io: &mut Io) {
        self.chains.clear();
    }

    fn save(&self) -> vmcell::Result<DeviceState> {
        if self.is_saved {
            return Ok(DeviceState::new(1, []));
        }
        Err(vmcell::Error::new(ErrorKind::InvalidState, "this one cannot be"))
    }
}

/// A guest that gives the first device a chain of one buffer, and waits for ever.
fn gives_a_chain() -> TinyGuest {
    let mut code = stores(&[(0x20_0000, 0x30_0000), (0x20_0004, 0), (0x20_0008, 16), (0x20_000c, 0), (0x20_1004, 0)]);
    code.extend(stores(&BRING_UP));
    code.extend(stores(&[(0x20_1000, 1 << 16), (DEVICE + 0x50, 0)]));
    code.extend([0xeb, 0xfe]);
    TinyGuest::new(code)
}

/// A VM that runs, whose device has been given a chain.
fn with_a_keeper(is_saved: bool) -> Vm {
    let (kernel, has_one) = (Kernel::new(&gives_a_chain()), Arc::<AtomicBool>::default());
    let keeper = Keeper { chains: Vec::new(), has_one: Arc::clone(&has_one), is_saved };
    let vm = tiny(&kernel).device(Box::new(keeper)).build().unwrap();
    vm.start().unwrap();
    let began = Instant::now();
    while !has_one.load(Ordering::SeqCst) {
        assert!(began.elapsed() < LIMIT);
        std::thread::sleep(Duration::from_millis(1));
    }
    vm
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn a_device_that_cannot_be_saved_is_named_and_the_vm_goes_on() {
    let vm = with_a_keeper(false);
    let mut called = false;
    let refused = vm.snapshot_with(|| {
        called = true;
        Ok(())
    });
    let error = refused.unwrap_err();
    assert_eq!(
        (error.kind(), error.to_string().as_str()),
        (ErrorKind::InvalidState, "device 0 of your own: this one cannot be")
    );
    assert!(!called, "there was nothing to copy disks for");
    assert_eq!(vm.status(), Status::Running);
    vm.pause().unwrap();
    vm.resume().unwrap();
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn a_stop_while_a_snapshot_waits_for_a_request_is_as_quick_as_ever_and_ends_the_wait() {
    let vm = with_a_keeper(true);
    std::thread::scope(|scope| {
        let taking = scope.spawn(|| {
            let began = Instant::now();
            (vm.snapshot().map(drop), began.elapsed())
        });
        std::thread::sleep(Duration::from_millis(300));
        assert!(!taking.is_finished(), "the device has let go of its chain");
        let began = Instant::now();
        vm.stop().unwrap();
        assert!(began.elapsed() < STOP, "{:?}", began.elapsed());
        let (taken, took) = taking.join().unwrap();
        assert_eq!(taken.unwrap_err().kind(), ErrorKind::InvalidState);
        assert!(took < Duration::from_secs(5), "{took:?}");
    });
    assert_eq!(vm.wait().unwrap(), Exit::Stopped);
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn snapshots_that_are_taken_at_once_are_taken_one_after_the_other() {
    let mut source = Counts::boot();
    assert_eq!(source.next(), 'a');
    let vm = &source.vm;
    let snapshots = std::thread::scope(|scope| {
        let takers = [(); 3].map(|()| scope.spawn(|| [(); 3].map(|()| vm.snapshot().unwrap())));
        takers.map(|taker| taker.join().unwrap())
    });
    for snapshot in snapshots.iter().flatten() {
        assert_eq!(Counts::fork(snapshot).next(), 'b');
    }
    assert_eq!(source.next(), 'b');
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn a_vm_that_ends_while_snapshots_are_taken_refuses_the_next_and_one_of_before_is_as_good_as_any() {
    let mut source = Counts::boot();
    assert_eq!(source.next(), 'a');
    let (vm, mut last) = (&source.vm, None);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(50));
            vm.request_stop();
        });
        let error = loop {
            match vm.snapshot() {
                Ok(snapshot) => last = Some(snapshot),
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), ErrorKind::InvalidState, "{error}");
    });
    vm.wait_timeout(LIMIT).unwrap();
    assert_eq!(Counts::fork(&last.expect("one before the end")).next(), 'b');
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn a_fork_with_another_disk_than_its_source_had_is_refused_and_told_the_difference() {
    let disk = |bytes: u64| Disk::from_file(memory_disk(bytes)).unwrap();
    let vm = tiny(&Kernel::new(&support::bring_up())).disk(disk(1 << 20)).build().unwrap();
    vm.start().unwrap();
    let began = Instant::now();
    while vm.metrics().devices[0].transport.doorbells == 0 {
        assert!(began.elapsed() < LIMIT);
        std::thread::sleep(Duration::from_millis(1));
    }
    let snapshot = vm.snapshot().unwrap();
    let fork = |disk: Disk| Vm::builder().fork_of(&snapshot).disk(disk).build();
    fork(disk(1 << 20)).unwrap().start().unwrap();
    for (other, has) in [
        (disk(512 << 10), "524288 bytes in blocks of 512, writable"),
        (disk(2 << 20), "2097152 bytes in blocks of 512, writable"),
        (disk(1 << 20).read_only(true), "1048576 bytes in blocks of 512, read-only"),
    ] {
        let error = fork(other).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        let expected = format!(
            "the disk has {has}, allowed is one like the one that was saved, with 1048576 bytes in blocks of 512, writable"
        );
        assert!(error.to_string().ends_with(&expected), "{error}");
    }
}
