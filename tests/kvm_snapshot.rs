//! Snapshots of VMs, and forks: natively, with a guest that counts what is typed.

mod support;

use std::io::{Read, Write};
use std::time::Duration;

use support::counts::{Counts, counter};
use support::{Kernel, tiny};
use vmcell::kvm::{Kvm, VcpuState};
use vmcell::testing::TinyGuest;
use vmcell::{Discovery, ErrorKind, ForkClock, MemoryBacking, Status, Vm};

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

/// Answers each byte that is typed by the 16 bytes of its generation's identifier.
fn tells_generation() -> TinyGuest {
    TinyGuest::new([
        0x66, 0xba, 0xfd, 0x03, //       mov dx, 0x3fd
        0xec, //                         in al, dx
        0xa8, 0x01, //                   test al, 1
        0x74, 0xf7, //                   jz to the start
        0x66, 0xba, 0xf8, 0x03, //       mov dx, 0x3f8
        0xec, //                         in al, dx
        0xbe, 0x00, 0xe0, 0x0f, 0x00, // mov esi, 0xfe000
        0xb9, 0x10, 0x00, 0x00, 0x00, // mov ecx, 16
        0xac, //                         lodsb
        0xee, //                         out dx, al
        0xff, 0xc9, //                   dec ecx
        0x75, 0xfa, //                   jnz to the lodsb
        0xeb, 0xe0, //                   jmp to the start
    ])
}

fn generation(counts: &mut Counts) -> [u8; 16] {
    counts.input.write_all(b"x").unwrap();
    let mut identifier = [0; 16];
    counts.output.read_exact(&mut identifier).unwrap();
    identifier
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn every_boot_and_every_fork_has_a_generation_of_its_own() {
    let kernel = Kernel::new(&tells_generation());
    let mut seen = std::collections::HashSet::from([[0; 16]]);
    let mut source = Counts::start(tiny(&kernel));
    let first = generation(&mut source);
    assert!(seen.insert(first) && seen.insert(generation(&mut Counts::start(tiny(&kernel)))));
    let snapshot = source.vm.snapshot().unwrap();
    let mut forks = [(); 2].map(|()| Counts::fork(&snapshot));
    assert!(forks.iter_mut().all(|fork| seen.insert(generation(fork))));
    let second = forks[0].vm.snapshot().unwrap();
    drop((snapshot, forks));
    assert!(seen.insert(generation(&mut Counts::fork(&second))));
    #[cfg(feature = "save")]
    {
        let folder = tempfile::tempdir().unwrap();
        second.save(folder.path().join("saved")).unwrap();
        let loaded = vmcell::Snapshot::load(folder.path().join("saved")).unwrap();
        assert!([(); 2].iter().all(|()| seen.insert(generation(&mut Counts::fork(&loaded)))));
    }
    assert_eq!(generation(&mut source), first);
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn a_guest_that_was_told_of_no_generation_keeps_its_memory_as_it_is() {
    let kernel = Kernel::new(&tells_generation());
    let boot = kernel.boot().discovery(Discovery::Cmdline);
    let mut source = Counts::start(tiny(&kernel).boot(boot));
    assert_eq!(generation(&mut source), [0; 16]);
    let mut fork = Counts::fork(&source.vm.snapshot().unwrap());
    assert_eq!(generation(&mut fork), [0; 16]);
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn the_moment_of_a_snapshot_is_the_callers_on_its_thread_while_the_vm_stands_still() {
    let mut source = Counts::boot();
    assert_eq!(source.next(), 'a');
    let (vm, this) = (&source.vm, std::thread::current().id());
    let snapshot = vm.snapshot_with(|| {
        assert_eq!((vm.status(), std::thread::current().id()), (Status::Paused, this));
        // What would wait for this very call is refused.
        let refused = [vm.pause().err(), vm.resume().err(), vm.snapshot().err()];
        assert!(refused.iter().all(|error| error.as_ref().unwrap().kind() == ErrorKind::InvalidState), "{refused:?}");
        Ok(())
    });
    let mut fork = Counts::fork(&snapshot.unwrap());
    // It may wait again afterwards.
    source.vm.pause().unwrap();
    source.vm.resume().unwrap();
    assert_eq!((source.next(), fork.next()), ('b', 'b'));
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn a_moment_that_fails_or_panics_leaves_no_snapshot_and_the_vm_goes_on() {
    let mut source = Counts::boot();
    let failed = source.vm.snapshot_with(|| Err(std::io::Error::other("no room"))).unwrap_err();
    let about = "the snapshot was not taken, because the function for its moment";
    assert_eq!((failed.kind(), failed.chain()), (ErrorKind::Host, format!("{about} failed: no room")));
    let panicked = source.vm.snapshot_with(|| panic!("a bug")).unwrap_err();
    assert_eq!(panicked.to_string(), format!("{about} panicked: a bug"));
    assert_eq!((source.vm.status(), source.next()), (Status::Running, 'a'));
    // One that was paused stays so.
    source.vm.pause().unwrap();
    source.vm.snapshot_with(|| panic!("a bug")).unwrap_err();
    assert_eq!(source.vm.status(), Status::Paused);
    source.vm.resume().unwrap();
    source.vm.snapshot().unwrap();
    assert_eq!(source.next(), 'b');
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn a_stop_at_the_moment_of_a_snapshot_is_as_quick_as_ever_and_the_snapshot_is_whole() {
    let mut source = Counts::boot();
    assert_eq!(source.next(), 'a');
    let vm = &source.vm;
    let snapshot = vm.snapshot_with(|| {
        let took = std::thread::scope(|scope| scope.spawn(|| stop_timed(vm)).join().unwrap());
        assert!(took < Duration::from_millis(100), "{took:?}");
        Ok(())
    });
    assert_eq!(Counts::fork(&snapshot.unwrap()).next(), 'b');
    assert_eq!(source.vm.wait().unwrap(), vmcell::Exit::Stopped);
}

fn stop_timed(vm: &Vm) -> Duration {
    let began = std::time::Instant::now();
    vm.stop().unwrap();
    began.elapsed()
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn a_vm_that_is_never_to_be_copied_refuses_and_goes_on() {
    let kernel = Kernel::new(&counter());
    let mut vm = Counts::start(tiny(&kernel).name("keys").never_snapshot());
    let mut called = false;
    let error = vm.vm.snapshot_with(|| {
        called = true;
        Ok(())
    });
    let error = error.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidState);
    assert_eq!(error.to_string(), "no snapshot may be taken of the VM \"keys\": never_snapshot is set");
    assert!(!called);
    assert_eq!((vm.vm.status(), vm.next()), (Status::Running, 'a'));
    // A fork is marked by its own builder.
    let source = Counts::boot();
    let fork = Counts::start(Vm::builder().fork_of(&source.vm.snapshot().unwrap()).never_snapshot());
    fork.vm.snapshot().unwrap_err();
}

const IA32_TSC: u32 = 0x10;
const DAY: Duration = Duration::from_secs(86_400);
/// How far a busy host may be behind.
const SLACK: Duration = Duration::from_secs(30);

/// By how much the clock and the time-stamp counters of a fork are ahead of those of its source, a day after the snapshot was taken.
fn clocks_a_day_later(clock: ForkClock) -> (Duration, Vec<Duration>) {
    let kernel = Kernel::new(&counter());
    let source = Counts::start(tiny(&kernel).vcpus(2));
    let mut snapshot = source.vm.snapshot().unwrap();
    assert!(snapshot.age(DAY));
    let fork = Counts::start(Vm::builder().fork_of(&snapshot).fork_clock(clock));
    let later = fork.vm.snapshot().unwrap();
    let ((chips, vcpus), (later_chips, later_vcpus)) = (snapshot.states(), later.states());
    let clock = later_chips.clock_ns.checked_sub(chips.clock_ns).expect("a clock that does not go back");
    let counters = vcpus.iter().zip(later_vcpus).map(|(was, is)| {
        let cycles = counter_of(is).checked_sub(counter_of(was)).expect("a counter that does not go back");
        Duration::from_micros(cycles * 1000 / u64::from(was.tsc_khz.unwrap()))
    });
    // In step, to the cycle.
    let ahead = |state: &VcpuState| state.tsc_offset.expect("a KVM that tells");
    assert_eq!(ahead(&later_vcpus[0]), ahead(&later_vcpus[1]));
    (Duration::from_nanos(clock), counters.collect())
}

fn counter_of(state: &VcpuState) -> u64 {
    state.msrs.iter().find(|(number, _)| *number == IA32_TSC).expect("a counter").1
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn the_clocks_of_a_fork_jump_by_the_time_that_passed() {
    let (clock, counters) = clocks_a_day_later(ForkClock::Jump);
    let jumped = DAY..DAY + SLACK;
    assert!(jumped.contains(&clock), "{clock:?}");
    assert!(!counters_can_be_set() || counters.iter().all(|counter| jumped.contains(counter)), "{counters:?}");
}

/// A software KVM lets the host's counter through as it is.
fn counters_can_be_set() -> bool {
    let kvm = Kvm::open().unwrap();
    let vm = kvm.create_vm().unwrap();
    vm.create_irqchip().unwrap();
    let vcpu = vm.create_vcpu(0).unwrap();
    let before = counter_of(&vcpu.state(&[IA32_TSC]).unwrap());
    vcpu.set_msrs(&[(IA32_TSC, before + (1 << 50))]).unwrap();
    counter_of(&vcpu.state(&[IA32_TSC]).unwrap()) >= before + (1 << 50)
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn the_clocks_of_a_fork_that_keeps_them_go_on_from_where_they_were() {
    let (clock, counters) = clocks_a_day_later(ForkClock::Keep);
    assert!(clock < SLACK && counters.iter().all(|counter| *counter < SLACK), "{clock:?} {counters:?}");
}
