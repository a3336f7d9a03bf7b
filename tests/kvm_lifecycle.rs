//! Start, pause, resume, stop, wait and drop, in every state and against guests that do not cooperate.

mod support;

use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use support::{Footprint, Kernel, Transcript, is_long, tiny};
use vmcell::testing::TinyGuest;
use vmcell::{Discovery, ErrorKind, Exit, ResetCause, Status, Vm};

const LONG: Duration = Duration::from_secs(30);
const STOP_PROMISE: Duration = Duration::from_millis(100);

fn started(guest: &TinyGuest, vcpus: u32) -> Vm {
    let kernel = Kernel::new(guest);
    let vm = tiny(&kernel).vcpus(vcpus).build().expect("the VM is built");
    vm.start().expect("the VM starts");
    vm
}

fn exit_of(guest: &TinyGuest) -> Exit {
    started(guest, 1).wait_timeout(LONG).expect("the guest ends")
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn each_way_to_end_is_told_apart() {
    assert!(matches!(exit_of(&TinyGuest::power_off()), Exit::Shutdown));
    assert!(matches!(exit_of(&TinyGuest::acpi_reset()), Exit::Reset(ResetCause::Acpi)));
    assert!(matches!(exit_of(&TinyGuest::keyboard_reset()), Exit::Reset(ResetCause::KeyboardController)));
    let exit = exit_of(&TinyGuest::triple_fault());
    assert!(matches!(exit, Exit::Reset(ResetCause::TripleFault)), "{exit:?}");
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn a_panic_of_which_the_guest_tells_is_told_apart() {
    assert!(matches!(exit_of(&TinyGuest::panic(1)), Exit::Panicked));
    // The crash kernel ends by a reset, but that is not why the VM ended.
    assert!(matches!(exit_of(&TinyGuest::panic(2)), Exit::Panicked));
    assert!(matches!(exit_of(&TinyGuest::panic(3)), Exit::Panicked));
    // Events that the register does not take.
    assert!(matches!(exit_of(&TinyGuest::panic(0xfc)), Exit::Reset(ResetCause::Acpi)));
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn a_guest_that_goes_on_in_its_crash_kernel_is_not_ended() {
    // mov dx, 0x505; mov al, 2; out dx, al; spin
    let vm = started(&TinyGuest::new([0x66, 0xba, 0x05, 0x05, 0xb0, 0x02, 0xee, 0xeb, 0xfe]), 1);
    assert_eq!(vm.wait_timeout(Duration::from_millis(200)).unwrap_err().kind(), ErrorKind::Timeout);
    vm.stop().unwrap();
    assert!(matches!(vm.wait().unwrap(), Exit::Stopped));
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn only_a_guest_that_lives_and_has_acpi_tables_can_be_asked_to_shut_down() {
    let refused = |vm: &Vm| {
        let error = vm.request_shutdown().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidState);
        error.to_string()
    };
    let kernel = Kernel::new(&TinyGuest::spin());
    let vm = tiny(&kernel).build().unwrap();
    assert!(refused(&vm).ends_with("was not started"));
    vm.start().unwrap();
    vm.request_shutdown().unwrap();
    vm.pause().unwrap();
    vm.request_shutdown().unwrap();
    // It does not listen.
    vm.resume().unwrap();
    assert_eq!(vm.status(), Status::Running);
    vm.stop().unwrap();
    assert!(refused(&vm).ends_with("has ended"));

    let vm = tiny(&kernel).boot(kernel.boot().discovery(Discovery::Cmdline)).build().unwrap();
    vm.start().unwrap();
    assert!(refused(&vm).contains("Discovery::Acpi"));
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn output_is_complete_when_wait_returns() {
    let text = "all of it, ".repeat(100);
    let kernel = Kernel::new(&TinyGuest::print(&text));
    let transcript = Transcript::default();
    let vm = tiny(&kernel).console(transcript.console()).build().unwrap();
    vm.start().unwrap();
    assert!(matches!(vm.wait().unwrap(), Exit::Shutdown));
    assert_eq!(transcript.text(), text);
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn stop_keeps_its_promise_against_any_guest() {
    let guests = [
        TinyGuest::spin(),
        TinyGuest::halt(),
        TinyGuest::flood(b'x'),
        // Where no device is: every store leaves the guest.
        TinyGuest::store(0xd800_0000, 1),
    ];
    for guest in guests {
        for vcpus in [1, 2] {
            let vm = started(&guest, vcpus);
            std::thread::sleep(Duration::from_millis(20));
            let begin = Instant::now();
            vm.stop().unwrap();
            let took = begin.elapsed();
            assert!(took < STOP_PROMISE, "{took:?} for {vcpus} vCPUs in {guest:?}");
            assert!(matches!(vm.wait().unwrap(), Exit::Stopped));
            assert_eq!(vm.status(), Status::Ended);
        }
    }
}

/// The first virtio device's doorbell (virtio 1.2, section 4.2.2), rung without end: first through the ioeventfd, then,
/// with a value that is no queue's, through the bus.
#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn stop_keeps_its_promise_while_the_guest_floods_a_device() {
    let image = tempfile::NamedTempFile::new().unwrap();
    image.as_file().set_len(1 << 20).unwrap();
    for value in [0, 7] {
        let kernel = Kernel::new(&TinyGuest::store(0xd000_0050, value));
        let disk = vmcell::Disk::open(image.path()).unwrap();
        let vm = tiny(&kernel).vcpus(2).disk(disk).build().unwrap();
        vm.start().unwrap();
        std::thread::sleep(Duration::from_millis(50));
        vm.pause().unwrap();
        vm.resume().unwrap();
        let begin = Instant::now();
        vm.stop().unwrap();
        assert!(begin.elapsed() < STOP_PROMISE, "{:?}", begin.elapsed());
    }
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn a_guest_that_touches_every_port_comes_to_its_end() {
    assert!(matches!(exit_of(&TinyGuest::touch_every_port()), Exit::Shutdown));
}

/// Registers and config space of a disk and the page behind it, at every alignment of a store of four bytes.
#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn a_guest_that_writes_anywhere_near_a_device_is_stopped_as_any_other() {
    let image = tempfile::NamedTempFile::new().unwrap();
    image.as_file().set_len(1 << 20).unwrap();
    for address in (0xd000_0000..0xd000_0120).step_by(13).chain([0xd000_0fff, 0xd000_1000]) {
        let kernel = Kernel::new(&TinyGuest::store(address, 0xffff_ffff));
        let disk = vmcell::Disk::open(image.path()).unwrap();
        let vm = tiny(&kernel).disk(disk).build().unwrap();
        vm.start().unwrap();
        std::thread::sleep(Duration::from_millis(2));
        assert_eq!(vm.status(), Status::Running, "{address:#x}");
        let begin = Instant::now();
        vm.stop().unwrap();
        assert!(begin.elapsed() < STOP_PROMISE, "{:?} at {address:#x}", begin.elapsed());
    }
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn stop_keeps_its_promise_while_nobody_reads_the_console() {
    let kernel = Kernel::new(&TinyGuest::flood(b'x'));
    let (reader, writer) = std::io::pipe().unwrap();
    let vm = tiny(&kernel).console(vmcell::Console::descriptors(writer.into(), None)).build().unwrap();
    vm.start().unwrap();
    let begin = Instant::now();
    while vm.console_dropped() == 0 {
        assert!(begin.elapsed() < LONG, "the guest waits for a reader");
        std::thread::sleep(Duration::from_millis(10));
    }
    let begin = Instant::now();
    vm.stop().unwrap();
    assert!(begin.elapsed() < STOP_PROMISE, "{:?}", begin.elapsed());
    drop(reader);
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn stop_returns_in_time_while_a_callback_blocks() {
    let kernel = Kernel::new(&TinyGuest::flood(b'x'));
    let (release, blocked) = std::sync::mpsc::channel::<()>();
    let vm = tiny(&kernel)
        .console(vmcell::Console::callback(move |_| {
            let _ = blocked.recv();
        }))
        .build()
        .unwrap();
    vm.start().unwrap();
    std::thread::sleep(Duration::from_millis(100));
    let begin = Instant::now();
    let _ = vm.stop();
    assert!(begin.elapsed() < STOP_PROMISE, "{:?}", begin.elapsed());
    drop(release);
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn a_paused_guest_stands_still_and_goes_on() {
    let kernel = Kernel::new(&TinyGuest::flood(b'x'));
    let transcript = Transcript::default();
    let vm = tiny(&kernel).console(transcript.console()).build().unwrap();
    vm.start().unwrap();
    assert!(transcript.wait_until(LONG, |text| text.len() > 100));
    for _ in 0..20 {
        vm.pause().unwrap();
        assert_eq!(vm.status(), Status::Paused);
        // What was printed before is still on its way to us.
        std::thread::sleep(Duration::from_millis(20));
        let before = transcript.len();
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(transcript.len(), before);
        vm.pause().unwrap();
        vm.resume().unwrap();
        assert_eq!(vm.status(), Status::Running);
        assert!(transcript.wait_until(LONG, |text| text.len() > before));
    }
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn a_paused_vm_that_is_paused_again_stays_paused_however_short_the_limit() {
    let kernel = Kernel::new(&TinyGuest::flood(b'x'));
    let disk = vmcell::Disk::from_file(vmcell::testing::memory_disk(4096)).unwrap();
    let vm = tiny(&kernel).disk(disk).build().unwrap();
    vm.start().unwrap();
    vm.pause().unwrap();
    vm.pause_within(Duration::ZERO).unwrap();
    assert_eq!(vm.status(), Status::Paused);
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn a_halted_guest_with_two_vcpus_pauses_too() {
    let vm = started(&TinyGuest::halt(), 2);
    vm.pause().unwrap();
    vm.resume().unwrap();
    vm.pause().unwrap();
    vm.stop().unwrap();
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn what_is_typed_comes_back() {
    let kernel = Kernel::new(&TinyGuest::echo());
    let transcript = Transcript::default();
    let vm = tiny(&kernel).console(transcript.console()).build().unwrap();
    vm.start().unwrap();
    let text: String = (0..2000).map(|n| format!("{n},")).collect();
    let mut rest = text.as_bytes();
    while !rest.is_empty() {
        let taken = vm.write_console(rest);
        rest = &rest[taken..];
    }
    assert!(transcript.wait_until(LONG, |seen| seen.len() >= text.len()));
    assert_eq!(transcript.text(), text);
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn calls_that_a_state_does_not_allow_are_refused() {
    let kernel = Kernel::new(&TinyGuest::spin());
    let vm = tiny(&kernel).build().unwrap();
    assert_eq!(vm.status(), Status::Ready);
    for error in [vm.pause(), vm.resume()].map(Result::unwrap_err) {
        assert_eq!(error.kind(), ErrorKind::InvalidState);
        assert!(error.to_string().contains("not started"), "{error}");
    }
    vm.start().unwrap();
    assert_eq!(vm.start().unwrap_err().to_string(), "cannot start a VM that runs");
    vm.resume().unwrap();
    assert_eq!(vm.wait_timeout(Duration::from_millis(10)).unwrap_err().kind(), ErrorKind::Timeout);
    vm.stop().unwrap();
    vm.stop().unwrap();
    for error in [vm.start(), vm.pause(), vm.resume()].map(Result::unwrap_err) {
        assert!(error.to_string().ends_with("a VM that has ended"), "{error}");
    }
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn stop_before_start_ends_the_vm() {
    let kernel = Kernel::new(&TinyGuest::spin());
    let vm = tiny(&kernel).build().unwrap();
    vm.stop().unwrap();
    assert!(matches!(vm.wait().unwrap(), Exit::Stopped));
    assert_eq!(vm.start().unwrap_err().to_string(), "cannot start a VM that has ended");
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn of_several_threads_that_start_a_vm_one_does() {
    let kernel = Kernel::new(&TinyGuest::power_off());
    for _ in 0..300 {
        let vm = tiny(&kernel).build().unwrap();
        let ready = std::sync::Barrier::new(8);
        let start = || {
            ready.wait();
            vm.start().is_ok()
        };
        let started = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(start)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).filter(|started| *started).count()
        });
        assert_eq!(started, 1);
        assert!(matches!(vm.wait_timeout(LONG).unwrap(), Exit::Shutdown));
    }
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn the_first_reason_to_end_is_the_one_that_counts() {
    let vm = started(&TinyGuest::power_off(), 1);
    vm.wait_timeout(LONG).unwrap();
    vm.stop().unwrap();
    assert!(matches!(vm.wait().unwrap(), Exit::Shutdown));
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn several_threads_may_wait_and_one_may_poll() {
    let vm = Arc::new(started(&TinyGuest::spin(), 1));
    let waiters: Vec<_> = (0..4)
        .map(|_| {
            let vm = vm.clone();
            std::thread::spawn(move || vm.wait().unwrap())
        })
        .collect();
    assert!(!is_readable(&vm));
    vm.stop().unwrap();
    assert!(is_readable(&vm) && is_readable(&vm));
    for waiter in waiters {
        assert!(matches!(waiter.join().unwrap(), Exit::Stopped));
    }
}

fn is_readable(vm: &Vm) -> bool {
    let path = format!("/proc/self/fdinfo/{}", vm.ended_fd().as_raw_fd());
    let info = std::fs::read_to_string(path).unwrap();
    let count = info.lines().find_map(|line| line.strip_prefix("eventfd-count:")).unwrap();
    u64::from_str_radix(count.trim(), 16).unwrap() > 0
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn vms_in_one_process_do_not_disturb_each_other() {
    let steady = started(&TinyGuest::spin(), 2);
    let shared = vmcell::IoThread::new("shared").unwrap();
    let kernels = [Kernel::new(&TinyGuest::print("a")), Kernel::new(&TinyGuest::print("b"))];
    for kernel in kernels.iter().cycle().take(20) {
        let transcript = Transcript::default();
        let vm = tiny(kernel).io_thread(shared.clone()).console(transcript.console()).build().unwrap();
        vm.start().unwrap();
        assert!(matches!(vm.wait_timeout(LONG).unwrap(), Exit::Shutdown));
        assert_eq!(transcript.len(), 1);
    }
    assert_eq!(steady.status(), Status::Running);
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn drop_in_any_state_leaves_nothing() {
    let kernel = Kernel::new(&TinyGuest::flood(b'x'));
    let before = Footprint::now();
    for state in 0..5 {
        let vm = tiny(&kernel).vcpus(2).build().unwrap();
        if state > 0 {
            vm.start().unwrap();
        }
        match state {
            2 => vm.pause().unwrap(),
            3 => vm.stop().unwrap(),
            4 => {
                vm.pause().unwrap();
                vm.resume().unwrap();
            }
            _ => {}
        }
        drop(vm);
        assert_eq!(Footprint::now(), before, "state {state}");
    }
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn a_thousand_vms_leave_no_thread_descriptor_or_mapping() {
    // Each way to end, and two guests that come to no end.
    let kernels = [
        TinyGuest::power_off(),
        TinyGuest::triple_fault(),
        TinyGuest::keyboard_reset(),
        TinyGuest::panic(1),
        TinyGuest::spin(),
        TinyGuest::halt(),
    ]
    .map(|guest| Kernel::new(&guest));
    let [first, ..] = &kernels;
    drop(tiny(first).build().unwrap());
    let before = Footprint::now();
    let memory_before = resident_kib();
    let many = if is_long() { 10_000 } else { 1000 };
    for number in 0..many {
        let kind = number / 4 % kernels.len();
        let vm = tiny(&kernels[kind]).build().unwrap();
        if number % 2 == 0 {
            vm.start().unwrap();
        }
        if number % 4 == 0 && kind < 4 {
            vm.wait_timeout(LONG).unwrap();
        }
    }
    assert_eq!(Footprint::now(), before);
    let grown = resident_kib().saturating_sub(memory_before);
    assert!(grown < 4096, "the process grew by {grown} KiB");
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
