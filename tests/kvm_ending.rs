//! VMs that are ended from anywhere: by callbacks, by threads that do not wait, and by none at all.

mod support;

use std::io::{Read, Write};
use std::os::fd::BorrowedFd;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Barrier, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use support::{Footprint, Kernel, tiny};
use vmcell::event::{Event, Io, Token, Wants};
use vmcell::testing::{TinyGuest, memory_disk};
use vmcell::virtio::{Activation, DeviceInfo, Queues, VirtioDevice};
use vmcell::{Console, Disk, ErrorKind, Exit, Result, Seccomp, Status, ThreadRole, Vm};

const LONG: Duration = Duration::from_secs(30);

/// Where a test leaves a VM for a callback.
type Slot = Arc<Mutex<Option<Vm>>>;

/// For tests that count what is left in the whole process, and one that makes much of it.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn is_readable(fd: BorrowedFd<'_>, limit: Duration) -> bool {
    let limit = Timespec { tv_sec: limit.as_secs().try_into().unwrap(), tv_nsec: 0 };
    poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::IN)], Some(&limit)).unwrap() == 1
}

fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !done() {
        assert!(begin.elapsed() < LONG, "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A VM whose guest prints all the time, and whose console calls `callback` with the VM once that is in the slot.
fn with_callback(callback: impl Fn(Vm) -> Option<Vm> + Send + 'static) -> (Vm, Slot) {
    let slot = Slot::default();
    let taken = Arc::clone(&slot);
    let console = Console::callback(move |_| {
        let vm = taken.lock().unwrap().take();
        if let Some(vm) = vm.and_then(&callback) {
            *taken.lock().unwrap() = Some(vm);
        }
    });
    // Some callbacks make disks.
    let kernel = Kernel::new(&TinyGuest::flood(b'x'));
    let vm = tiny(&kernel).seccomp(Seccomp::Off).console(console).build().unwrap();
    vm.start().unwrap();
    (vm, slot)
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn two_callbacks_that_drop_each_others_vm_come_back() {
    let _alone = alone();
    let before = Footprint::now();
    let met = Arc::new(Barrier::new(2));
    let (sender, came_back) = channel();
    let [(first, first_slot), (second, second_slot)] = [(); 2].map(|()| {
        let (met, sender) = (Arc::clone(&met), sender.clone());
        with_callback(move |other| {
            met.wait();
            drop(other);
            sender.send(()).unwrap();
            None
        })
    });
    *first_slot.lock().unwrap() = Some(second);
    *second_slot.lock().unwrap() = Some(first);
    for _ in 0..2 {
        came_back.recv_timeout(LONG).expect("a callback waits for the other one");
    }
    eventually("both VMs to be freed", || Vm::discarded() == 0 && Footprint::now() == before);
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn what_waits_is_refused_in_a_callback_and_the_rest_works() {
    let disk = Disk::from_file(memory_disk(4096)).unwrap();
    let handle = disk.handle();
    let (sender, kinds) = channel();
    let (vm, slot) = with_callback(move |vm| {
        let begin = Instant::now();
        let other = Disk::from_file(memory_disk(4096)).unwrap();
        let refused = [
            vm.pause().err(),
            vm.pause_within(LONG).err(),
            vm.wait().err(),
            vm.wait_timeout(LONG).err(),
            handle.replace(other, LONG).err(),
            vm.wait_timeout(Duration::ZERO).err(),
        ];
        vm.resume().unwrap();
        assert_eq!(vm.status(), Status::Running);
        assert!(begin.elapsed() < LONG / 2);
        vm.stop().unwrap();
        sender.send(refused.map(|error| error.unwrap().kind())).unwrap();
        None
    });
    drop(disk);
    *slot.lock().unwrap() = Some(vm);
    let kinds = kinds.recv_timeout(LONG).expect("the callback comes back");
    assert_eq!(kinds[..5], [ErrorKind::InvalidState; 5]);
    assert_eq!(kinds[5], ErrorKind::Timeout);
}

/// A device that calls something each time that it has a turn.
struct Calls {
    call: Box<dyn FnMut() + Send>,
    token: Option<Token>,
}

impl VirtioDevice for Calls {
    fn info(&self) -> DeviceInfo {
        DeviceInfo::new(42, &[64])
    }

    fn attach(&mut self, io: &mut Io) -> Result<()> {
        self.token = Some(io.token());
        Ok(())
    }

    fn activate(&mut self, _io: &mut Io, _activation: Activation) -> Result<()> {
        Ok(())
    }

    fn process_queue(&mut self, _io: &mut Io, _queues: &mut Queues, _index: u16) -> Result<()> {
        Ok(())
    }

    fn wants(&self, wants: &mut Wants) {
        if let Some(token) = self.token {
            wants.deadline(token, Instant::now() + Duration::from_millis(1));
        }
    }

    fn woken(&mut self, _io: &mut Io, _queues: &mut Queues, _event: &Event) -> Result<()> {
        (self.call)();
        Ok(())
    }

    fn reset(&mut self, _io: &mut Io) {}
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn a_device_of_the_host_programs_own_may_use_its_vm() {
    let slot = Slot::default();
    let (sender, seen) = channel();
    let taken = Arc::clone(&slot);
    let call = Box::new(move || {
        if let Some(vm) = taken.lock().unwrap().take() {
            let begin = Instant::now();
            assert_eq!(vm.pause().unwrap_err().kind(), ErrorKind::InvalidState);
            assert_eq!(vm.wait().unwrap_err().kind(), ErrorKind::InvalidState);
            vm.resume().unwrap();
            vm.stop().unwrap();
            drop(vm);
            sender.send(begin.elapsed()).unwrap();
        }
    });
    let vm = tiny(&Kernel::new(&TinyGuest::spin())).device(Box::new(Calls { call, token: None })).build().unwrap();
    vm.start().unwrap();
    *slot.lock().unwrap() = Some(vm);
    let took = seen.recv_timeout(LONG).expect("the device comes back from its call");
    assert!(took < LONG / 6, "it waited for {took:?}");
    eventually("the VM to be freed", || Vm::discarded() == 0);
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn a_callback_that_resumes_a_vm_that_is_being_paused_does_not_wait_for_the_pause() {
    // The device's own turn holds up the pause until it has resumed.
    let vm = Arc::new(Mutex::new(None::<Arc<Vm>>));
    let (sender, resumed) = channel();
    let (calls, taken) = (Arc::new(Barrier::new(2)), Arc::clone(&vm));
    let pausing = Arc::clone(&calls);
    let call = Box::new(move || {
        if let Some(vm) = taken.lock().unwrap().take() {
            pausing.wait();
            std::thread::sleep(Duration::from_millis(100));
            sender.send(vm.resume().err().map(|error| error.kind())).unwrap();
        }
    });
    let kernel = Kernel::new(&TinyGuest::spin());
    let built = Arc::new(tiny(&kernel).device(Box::new(Calls { call, token: None })).build().unwrap());
    built.start().unwrap();
    *vm.lock().unwrap() = Some(Arc::clone(&built));
    calls.wait();
    built.pause().unwrap();
    assert_eq!(resumed.recv_timeout(LONG).unwrap(), Some(ErrorKind::InvalidState));
}

/// A VM whose guest has printed and turned itself off, and whose console's callback does not come back until it is released.
fn held_by_its_console() -> (Vm, Sender<()>) {
    let (release, held): (_, Receiver<()>) = channel();
    let (enter, entered) = channel();
    let console = Console::callback(move |_| {
        let _ = enter.send(());
        let _ = held.recv();
    });
    let vm = tiny(&Kernel::new(&TinyGuest::print("the last words"))).console(console).build().unwrap();
    vm.start().unwrap();
    // A VM that is stopped before its guest has printed is held by nothing.
    entered.recv().unwrap();
    (vm, release)
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn the_status_is_ended_exactly_when_waiting_is_over() {
    let (vm, release) = held_by_its_console();
    eventually("the guest to turn itself off", || vm.status() != Status::Running);
    loop {
        let (before, looked, after) = (vm.status(), vm.wait_timeout(Duration::ZERO), vm.status());
        match looked {
            Ok(exit) => {
                assert_eq!((exit, after), (Exit::Shutdown, Status::Ended));
                break;
            }
            Err(error) => assert_eq!((error.kind(), before), (ErrorKind::Timeout, Status::Ending)),
        }
    }
    drop(release);
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn a_wait_that_begins_before_the_start_ends_with_the_vm() {
    let vm = Arc::new(tiny(&Kernel::new(&TinyGuest::power_off())).build().unwrap());
    let (waiting, waits) = (Arc::clone(&vm), Arc::new(Barrier::new(2)));
    let begins = Arc::clone(&waits);
    let waiter = std::thread::spawn(move || {
        begins.wait();
        waiting.wait_timeout(LONG)
    });
    waits.wait();
    assert_eq!(vm.wait_timeout(Duration::from_millis(1)).unwrap_err().kind(), ErrorKind::Timeout);
    vm.start().unwrap();
    assert_eq!(waiter.join().unwrap().unwrap(), Exit::Shutdown);
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn a_stop_that_only_asks_and_a_discard_do_not_wait_for_a_callback_that_is_held() {
    let _alone = alone();
    let before = Footprint::now();
    // The callback of each holds the I/O thread, and so whatever waits for that.
    let (vms, releases): (Vec<_>, Vec<_>) = (0..8).map(|_| held_by_its_console()).unzip();
    let begin = Instant::now();
    vms.iter().for_each(Vm::request_stop);
    vms.into_iter().for_each(Vm::discard);
    assert_eq!(Vm::discarded(), 8);
    assert!(begin.elapsed() < LONG);
    drop(releases);
    eventually("all VMs to be freed", || Vm::discarded() == 0 && Footprint::now() == before);
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn dropping_a_vm_that_discards_on_drop_does_not_wait_and_a_descriptor_tells_when_it_is_freed() {
    let _alone = alone();
    let done = Vm::discards_done_fd().unwrap();
    let before = Footprint::now();
    let (held, release) = held_by_its_console();
    held.set_discard_on_drop(true);
    let (discarded, other_release) = held_by_its_console();
    discarded.set_discard_on_drop(true);
    let begin = Instant::now();
    drop(held);
    discarded.discard();
    assert!(begin.elapsed() < LONG && Vm::discarded() == 2);
    drop(release);
    eventually("the first to be freed", || Vm::discarded() == 1);
    assert!(!is_readable(done, Duration::ZERO));
    drop(other_release);
    assert!(is_readable(done, LONG) && Vm::discarded() == 0);
    eventually("both VMs to be gone", || Footprint::now() == before);
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn a_stop_is_done_once_the_guest_executes_nothing_although_a_callback_is_held() {
    let (vm, release) = held_by_its_console();
    eventually("the guest to turn itself off", || vm.status() == Status::Ending);
    vm.stop().unwrap();
    assert_eq!(vm.wait_timeout(LONG).unwrap(), Exit::Shutdown);
    drop(release);
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn a_vm_that_is_stopped_before_its_start_ends_its_console_at_once() {
    let (console, mut reader, mut writer) = Console::pair().unwrap();
    reader.set_nonblocking(true).unwrap();
    let vm = tiny(&Kernel::new(&TinyGuest::power_off())).console(console).build().unwrap();
    assert_eq!(reader.read(&mut [0]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    vm.request_stop();
    assert_eq!((vm.status(), vm.wait().unwrap()), (Status::Ended, Exit::Stopped));
    eventually("the reader to see the end", || reader.read(&mut [0]).is_ok_and(|count| count == 0));
    eventually("the writer to see the end", || writer.write(b"x").is_err());
    assert_eq!(vm.start().unwrap_err().kind(), ErrorKind::InvalidState);
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn a_start_that_fails_ends_the_console_too() {
    let kernel = Kernel::new(&TinyGuest::power_off());
    for vcpus in [1, 2, 5] {
        for failing in 0..vcpus {
            let (console, mut reader, _writer) = Console::pair().unwrap();
            reader.set_nonblocking(true).unwrap();
            let builder = tiny(&kernel).vcpus(vcpus).console(console);
            let fails = move |role| {
                if role == ThreadRole::Vcpu(failing) { Err(std::io::ErrorKind::Other.into()) } else { Ok(()) }
            };
            let vm = builder.on_thread_start(fails).build().unwrap();
            assert_eq!(vm.start().unwrap_err().kind(), ErrorKind::Host);
            eventually("the reader to see the end", || reader.read(&mut [0]).is_ok_and(|count| count == 0));
            assert!(matches!(vm.wait().unwrap(), Exit::Failed(_)));
            vm.stop().unwrap();
        }
    }
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn a_function_on_the_thread_of_a_vcpu_cannot_wait_for_a_vm_and_may_do_all_else() {
    let kernel = Kernel::new(&TinyGuest::spin());
    let other = Arc::new(tiny(&kernel).build().unwrap());
    other.start().unwrap();
    let (used, (sender, seen)) = (Arc::clone(&other), channel());
    let own = Arc::new(Mutex::new(None::<Arc<Vm>>));
    let slot = Arc::clone(&own);
    let builder = tiny(&kernel).vcpus(2).on_thread_start(move |role| {
        if let (ThreadRole::Vcpu(0), Some(own)) = (role, slot.lock().unwrap().take()) {
            let refused = [used.wait().err(), used.wait_timeout(LONG).err(), used.pause().err(), own.wait().err()];
            used.resume().unwrap();
            let _ = (used.metrics(), used.threads(), used.console_status(), own.metrics(), own.threads(), own.name());
            used.stop().unwrap();
            // It waits for this very thread.
            let stopped = own.stop().err();
            sender.send((refused, stopped.map(|error| error.kind()))).unwrap();
        }
        Ok(())
    });
    let vm = Arc::new(builder.build().unwrap());
    *own.lock().unwrap() = Some(Arc::clone(&vm));
    let begin = Instant::now();
    vm.start().unwrap();
    let (refused, stopped) = seen.recv_timeout(LONG).expect("the function comes back");
    assert!(begin.elapsed() < LONG / 2);
    for error in refused {
        let error = error.expect("it is refused");
        assert_eq!(error.kind(), ErrorKind::InvalidState);
        assert!(error.to_string().starts_with("a callback on a thread of a VM cannot "), "{error}");
    }
    assert_eq!(stopped, Some(ErrorKind::Timeout));
    assert_eq!((vm.wait().unwrap(), other.wait().unwrap()), (Exit::Stopped, Exit::Stopped));
}

/// Does something with a VM that is as good as any, chosen by `choice`; what it says about that is not the point.
fn meddle(vm: &Vm, choice: u64) {
    let moment = Duration::from_micros(choice >> 8 & 0x3ff);
    match choice % 16 {
        0 => drop(vm.start()),
        1 => drop(vm.pause_within(moment)),
        2 | 3 => drop(vm.resume()),
        4 => drop(vm.wait_timeout(moment)),
        5 => drop(vm.wait_timeout(Duration::ZERO)),
        6 => drop(vm.request_shutdown()),
        7 => drop(vm.metrics()),
        8 => drop(vm.threads()),
        9 => drop(vm.console_status()),
        10 => drop(vm.write_console(b"x")),
        11 if choice >> 32 & 7 == 0 => vm.request_stop(),
        12 if choice >> 32 & 7 == 0 => assert_in_time(|| drop(vm.stop())),
        _ => drop(vm.status()),
    }
}

/// Far above what is promised, since the host may be busy.
fn assert_in_time(call: impl FnOnce()) {
    let begin = Instant::now();
    call();
    assert!(begin.elapsed() < LONG / 3, "it took {:?}", begin.elapsed());
}

/// The same numbers each time.
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *state >> 16
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn whatever_many_threads_do_with_many_vms_at_once_each_ends_once_and_all_are_freed() {
    let _alone = alone();
    let shared = vmcell::IoThread::new("any:io").unwrap();
    let guests = [TinyGuest::spin(), TinyGuest::flood(b'x'), TinyGuest::print("bye"), TinyGuest::power_off()];
    let kernels = guests.map(|guest| Kernel::new(&guest));
    let vms: Vec<_> = (0..40usize)
        .map(|index| {
            let disk = Disk::from_file(memory_disk(4096)).unwrap();
            let builder = tiny(&kernels[index % 4]).name("any").vcpus(1 + index as u32 % 3).disk(disk);
            let console = Console::callback(|_| std::thread::sleep(Duration::from_micros(100)));
            let builder = if index % 3 == 0 { builder.io_thread(shared.clone()) } else { builder };
            Arc::new(builder.console(console).build().unwrap())
        })
        .collect();
    std::thread::scope(|scope| {
        for seed in 1..=6 {
            let vms = vms.clone();
            scope.spawn(move || {
                let mut state = seed;
                for _ in 0..2000 {
                    let choice = random(&mut state);
                    meddle(&vms[(choice >> 40) as usize % vms.len()], choice);
                }
            });
        }
    });
    for (index, vm) in vms.into_iter().enumerate() {
        vm.request_stop();
        let exit = vm.wait_timeout(LONG).expect("it ends");
        assert!(matches!(exit, Exit::Stopped | Exit::Shutdown | Exit::Reset(_)), "{exit:?}");
        assert_eq!((vm.status(), vm.wait().unwrap()), (Status::Ended, exit), "it ended once");
        let vm = Arc::into_inner(vm).expect("nobody else has it");
        if index % 2 == 0 { vm.discard() } else { assert_in_time(|| drop(vm)) }
    }
    drop(shared);
    let is_ours = |task: std::fs::DirEntry| {
        std::fs::read_to_string(task.path().join("comm")).is_ok_and(|name| name.starts_with("any:"))
    };
    eventually("all to be freed", || {
        Vm::discarded() == 0 && !std::fs::read_dir("/proc/self/task").unwrap().flatten().any(is_ours)
    });
}
