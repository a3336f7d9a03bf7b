//! VMs on backends that do what none may: stopped and dropped in time, beside others on the same I/O thread.

#[path = "support/misbehaving.rs"]
mod misbehaving;
mod support;

use std::time::{Duration, Instant};

use misbehaving::{Call, Leash, Manner, Misbehaving};
use support::{Kernel, Transcript, tiny};
use vmcell::testing::TinyGuest;
use vmcell::{Disk, ErrorKind, Exit, IoThread, Vm};

const LONG: Duration = Duration::from_secs(30);

fn vm(manner: Manner, io_thread: &IoThread) -> (vmcell::Result<Vm>, Leash) {
    let kernel = Kernel::new(&TinyGuest::store(0xd000_0050, 0));
    let (backend, leash) = Misbehaving::new(manner);
    if manner == Manner::PanicsIn(Call::Attach) {
        leash.let_loose();
    }
    let disk = Disk::backend(backend).io_thread(io_thread.clone());
    (tiny(&kernel).io_thread(io_thread.clone()).disk(disk).build(), leash)
}

/// A VM on the same thread that has its console there.
fn assert_neighbour_works(io_thread: &IoThread) {
    let (kernel, transcript) = (Kernel::new(&TinyGuest::print("hello")), Transcript::default());
    let vm = tiny(&kernel).io_thread(io_thread.clone()).console(transcript.console()).build().unwrap();
    vm.start().unwrap();
    assert!(matches!(vm.wait_timeout(LONG), Ok(Exit::Shutdown)));
    assert_eq!(transcript.text(), "hello");
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn a_vm_whose_disk_misbehaves_is_stopped_in_time_beside_others_on_its_thread() {
    let io_thread = IoThread::new("shared").unwrap();
    for manner in [Manner::AsksForTurnsForEver, Manner::PanicsIn(Call::Wants), Manner::PanicsIn(Call::Woken)] {
        let (vm, leash) = vm(manner, &io_thread);
        let vm = vm.unwrap();
        vm.start().unwrap();
        leash.let_loose();
        assert_neighbour_works(&io_thread);
        let begun = Instant::now();
        vm.stop().unwrap();
        assert!(begun.elapsed() < Duration::from_millis(100), "{manner:?}: stop() took {:?}", begun.elapsed());
        drop(vm);
        assert!(begun.elapsed() < Duration::from_secs(1), "{manner:?}: drop took {:?}", begun.elapsed());
        assert_neighbour_works(&io_thread);
    }
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn a_backend_that_panics_when_it_is_attached_makes_no_vm() {
    let io_thread = IoThread::new("shared").unwrap();
    let (vm, _) = vm(Manner::PanicsIn(Call::Attach), &io_thread);
    let error = vm.map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Disk, "{error}");
    assert_neighbour_works(&io_thread);
}
