//! Snapshots of VMs, and forks: natively, with a guest that counts what is typed.

mod support;

use std::io::Read;
use std::time::Duration;

use support::counts::{Counts, counter};
use support::{Kernel, tiny};
use vmcell::{ErrorKind, MemoryBacking, Status, Vm};

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn forks_go_on_from_where_their_source_was_and_see_nothing_of_each_other() {
    for backing in [MemoryBacking::Anonymous, MemoryBacking::Memfd] {
        forks_go_on(backing);
    }
}

fn forks_go_on(backing: MemoryBacking) {
    let mut source = Counts::boot_on(backing);
    assert_eq!([source.next(), source.next()], ['a', 'b']);
    let snapshot = source.vm.snapshot().unwrap();
    assert_eq!(source.vm.status(), Status::Running);
    assert_eq!(source.next(), 'c');
    let mut forks: Vec<_> = (0..20).map(|_| Counts::fork(&snapshot)).collect();
    for (steps, fork) in (1u8..).zip(&mut forks) {
        let answers: Vec<char> = (0..steps).map(|_| fork.next()).collect();
        let expected: Vec<char> = (0..steps).map(|step| char::from(b'c' + step)).collect();
        assert_eq!(answers, expected);
    }
    assert_eq!(source.next(), 'd');
    // A fork of a fork, once its source and the first snapshot are gone.
    let second = forks[2].vm.snapshot().unwrap();
    drop((source, snapshot, forks));
    let mut fork = Counts::fork(&second);
    assert_eq!([fork.next(), fork.next()], ['f', 'g']);
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn what_was_typed_and_not_read_yet_is_read_by_the_fork() {
    let mut source = Counts::boot();
    assert_eq!(source.next(), 'a');
    source.vm.pause().unwrap();
    // More than the port's own buffer of 64 takes.
    assert_eq!(source.vm.write_console(&[b'x'; 20]), 20);
    let snapshot = source.vm.snapshot().unwrap();
    assert_eq!(source.vm.status(), Status::Paused);
    let mut fork = Counts::fork(&snapshot);
    let mut answers = [0; 20];
    fork.output.read_exact(&mut answers).unwrap();
    assert_eq!(&answers, b"bcdefghijklmnopqrstu");
    source.vm.resume().unwrap();
    source.output.read_exact(&mut answers).unwrap();
    assert_eq!(&answers, b"bcdefghijklmnopqrstu");
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn a_vm_that_has_not_started_or_has_ended_has_no_snapshot_and_a_fork_with_other_devices_is_refused_by_their_names() {
    let kernel = Kernel::new(&counter());
    let vm = tiny(&kernel).build().unwrap();
    let refused = |vm: &Vm| {
        let error = vm.snapshot().unwrap_err();
        (error.kind(), error.to_string())
    };
    let expected = |message: &str| (ErrorKind::InvalidState, message.to_owned());
    assert_eq!(refused(&vm), expected("cannot take a snapshot of a VM that was not started"));
    vm.start().unwrap();
    let snapshot = vm.snapshot().unwrap();
    vm.stop().unwrap();
    assert_eq!(refused(&vm), expected("cannot take a snapshot of a VM that has ended"));
    let disk = tempfile::NamedTempFile::new().unwrap();
    disk.as_file().set_len(1 << 20).unwrap();
    let disk = vmcell::Disk::open(disk.path()).unwrap();
    let error = Vm::builder().fork_of(&snapshot).disk(disk).build().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    let message = error.to_string();
    assert!(message.ends_with("allowed are those of its source: none"), "{message}");
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn a_stop_while_a_snapshot_is_taken_takes_no_longer_than_any_other() {
    let source = Counts::boot();
    std::thread::scope(|scope| {
        let taking = scope.spawn(|| {
            // Until it is refused, since the VM has ended.
            while source.vm.snapshot().is_ok() {}
        });
        std::thread::sleep(Duration::from_millis(200));
        source.vm.stop().unwrap();
        taking.join().unwrap();
    });
    source.vm.wait().unwrap();
}
