//! What the host program is told of devices that fail.

mod support;

use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant, SystemTime};

use support::{Kernel, break_queues, bring_up, tiny};
use vmcell::block::{DiskBackend, DiskInfo, Done, Operation, Tag};
use vmcell::event::{Event, Io, Waker};
use vmcell::net::{NicBackend, NicInfo, RxBatch, TxBatch};
use vmcell::testing::{TinyGuest, memory_disk};
use vmcell::virtio::FailureCause;
use vmcell::{DeviceFailure, Disk, ErrorKind, Nic, Vm};

const PATIENCE: Duration = Duration::from_secs(30);

fn wait_for(vm: &Vm, mut is_there: impl FnMut(&[DeviceFailure]) -> bool) -> Vec<DeviceFailure> {
    let begun = Instant::now();
    loop {
        let failures = vm.device_failures();
        if is_there(&failures) {
            return failures;
        }
        assert!(begun.elapsed() < PATIENCE, "{failures:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A disk whose backend panics as code does that has a mistake.
struct Broken;

impl DiskBackend for Broken {
    fn info(&self) -> DiskInfo {
        DiskInfo::new(4096)
    }

    fn submit(&mut self, _io: &mut Io, _tag: Tag, operation: Operation) -> Result<(), Operation> {
        Err(operation)
    }

    fn completed(&mut self, _io: &mut Io) -> Option<Done> {
        let done: Vec<Done> = Vec::new();
        let position = done.len() + 3;
        done.into_iter().nth(position).or_else(|| panic!("index out of bounds: {position}"))
    }
}

/// A card whose network goes down for good when it is told so.
struct Cut(Receiver<()>, std::sync::mpsc::Sender<Waker>);

impl NicBackend for Cut {
    fn info(&self) -> NicInfo {
        NicInfo::default()
    }

    fn attach(&mut self, io: &mut Io) -> vmcell::Result<()> {
        let token = io.token();
        let _ = self.1.send(io.waker(token));
        Ok(())
    }

    fn receive(&mut self, _io: &mut Io, _frames: &mut RxBatch) {}

    fn send(&mut self, _io: &mut Io, _frames: &mut TxBatch) {}

    fn woken(&mut self, io: &mut Io, _event: &Event) {
        if self.0.try_recv().is_ok() {
            io.give_up("the network is gone\nfor good");
        }
    }
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn a_backend_that_panics_is_told_with_its_disk_and_why_and_the_vm_goes_on() {
    let kernel = Kernel::new(&bring_up());
    let before = SystemTime::now();
    let good = Disk::from_file(memory_disk(4096)).unwrap();
    let vm = tiny(&kernel).disk(Disk::backend(Broken)).disk(good).build().unwrap();
    assert_eq!(vm.device_failures(), []);
    vm.start().unwrap();
    let failures = wait_for(&vm, |failures| failures.iter().any(|failure| failure.failure.needs_reset));
    let [DeviceFailure { device, label, failure, .. }] = failures.as_slice() else { panic!("{failures:?}") };
    assert_eq!((device.as_str(), label.as_str()), ("disk0", "disk 0 (on a backend)"));
    assert_eq!((failure.cause, failure.count), (FailureCause::Panicked, 1));
    assert!((before..=SystemTime::now()).contains(&failure.at));
    assert_eq!(failures[0].to_string(), "disk 0 (on a backend): the backend panicked: index out of bounds: 3");
    let metrics = vm.metrics();
    let transport = &metrics.devices[0].transport;
    assert_eq!((transport.failures, transport.needs_reset), (1, true));
    assert!(metrics.to_json().contains(r#""failures":1,"needs_reset":true"#));
    let text = metrics.to_openmetrics();
    for line in
        ["vmcell_device_failures_total{vm=\"\",device=\"disk0\"} 1\n", "_needs_reset{vm=\"\",device=\"disk1\"} 0\n"]
    {
        assert!(text.contains(line), "{text}");
    }
    vm.pause().unwrap();
    vm.resume().unwrap();
    vm.stop().unwrap();
    assert_eq!(vm.device_failures(), failures, "after the end, too");
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn a_guest_that_breaks_its_queue_for_ever_is_one_entry_whose_count_goes_up() {
    let kernel = Kernel::new(&break_queues());
    let disk = Disk::from_file(memory_disk(4096)).unwrap();
    let vm = tiny(&kernel).disk(disk).build().unwrap();
    vm.start().unwrap();
    let failures = wait_for(&vm, |failures| failures.iter().any(|failure| failure.failure.count > 200));
    vm.stop().unwrap();
    assert_eq!(failures.len(), 1);
    assert_eq!(failures[0].failure.cause, FailureCause::BrokenQueue);
    assert!(!failures[0].failure.cause.is_final());
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn a_backend_that_gives_up_is_told_whether_or_not_the_guest_uses_it() {
    let kernel = Kernel::new(&TinyGuest::spin());
    let ((cut, is_cut), (wakers, waker)) = (channel(), channel());
    let vm = tiny(&kernel).nic(Nic::backend(Cut(is_cut, wakers))).build().unwrap();
    cut.send(()).unwrap();
    waker.recv().unwrap().wake();
    let failures = wait_for(&vm, |failures| !failures.is_empty());
    assert_eq!(failures[0].to_string(), "nic 0 (on a backend): the backend gave up: the network is gone for good");
    assert_eq!((failures[0].device.as_str(), failures[0].failure.cause), ("nic0", FailureCause::GaveUp));
    vm.start().unwrap();
    assert_eq!(vm.pause_within(PATIENCE), Ok(()));
    drop(vm);
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn a_backend_that_panics_while_a_vm_is_built_is_an_error_with_its_disk_and_why() {
    struct Early;

    impl DiskBackend for Early {
        fn info(&self) -> DiskInfo {
            panic!("no disk today")
        }

        fn submit(&mut self, _io: &mut Io, _tag: Tag, operation: Operation) -> Result<(), Operation> {
            Err(operation)
        }

        fn completed(&mut self, _io: &mut Io) -> Option<Done> {
            None
        }
    }

    let kernel = Kernel::new(&TinyGuest::spin());
    let error = tiny(&kernel).disk(Disk::backend(Early)).build().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Disk);
    assert_eq!(error.to_string(), "disk 0 (on a backend): the backend panicked: no disk today");
}
