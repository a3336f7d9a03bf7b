//! A vCPU comes back from the guest when it is told to, whatever the host has run out of, and by whichever signal.
#![allow(unsafe_code, reason = "uses up the host's signals, for which there is no safe interface")]

mod support;

use std::sync::mpsc;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use support::{Kernel, tiny};
use vmcell::kvm::{Kvm, KvmVm, Registers, Vcpu, VcpuExit};
use vmcell::testing::TinyGuest;
use vmcell::{Exit, GuestAddress, GuestMemory, Vm};

const STOP_PROMISE: Duration = Duration::from_millis(100);
/// What takes longer hangs.
const HANGS: Duration = Duration::from_secs(30);
/// How many signals may be pending, for this process's user.
const FEW: libc::rlim_t = 64;

/// `RLIMIT_SIGPENDING`, lowered for as long as this lives. It is that of the whole process, so one test at a time.
struct SignalLimit {
    before: libc::rlimit,
    _alone: MutexGuard<'static, ()>,
}

impl SignalLimit {
    fn new(limit: libc::rlim_t) -> Self {
        static ALONE: Mutex<()> = Mutex::new(());
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let mut before = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: the pointers are valid for the calls.
        let done = unsafe {
            libc::getrlimit(libc::RLIMIT_SIGPENDING, &mut before)
                | libc::setrlimit(libc::RLIMIT_SIGPENDING, &libc::rlimit { rlim_cur: limit, ..before })
        };
        assert_eq!(done, 0);
        Self { before, _alone: alone }
    }
}

impl Drop for SignalLimit {
    fn drop(&mut self) {
        // SAFETY: the pointer is valid for the call.
        unsafe { libc::setrlimit(libc::RLIMIT_SIGPENDING, &self.before) };
    }
}

/// A thread that blocks a real-time signal, with as many of them pending as the host allows.
struct FullQueue {
    end: mpsc::Sender<()>,
    thread: Option<JoinHandle<()>>,
}

impl FullQueue {
    fn new() -> Self {
        let (end, ended) = mpsc::channel();
        let (full, filled) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            // SAFETY: the set is initialised before it is used, and the signals that this thread sends itself stay blocked.
            let refused = unsafe {
                let (mut set, signal) = (std::mem::zeroed(), libc::SIGRTMIN() + 3);
                libc::sigemptyset(&mut set);
                libc::sigaddset(&mut set, signal);
                libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut());
                (0..=FEW).map(|_| libc::pthread_kill(libc::pthread_self(), signal)).find(|error| *error != 0)
            };
            full.send(refused).unwrap();
            let _ = ended.recv();
        });
        assert_eq!(filled.recv().unwrap(), Some(libc::EAGAIN), "the host still takes signals");
        Self { end, thread: Some(thread) }
    }
}

impl Drop for FullQueue {
    fn drop(&mut self) {
        let _ = self.end.send(());
        let _ = self.thread.take().unwrap().join();
    }
}

/// Runs a test on a thread of its own; panics if it does not come to its end.
fn in_time(body: impl FnOnce() + Send + 'static) {
    let (sender, done) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        body();
        sender.send(()).unwrap();
    });
    match done.recv_timeout(HANGS) {
        Ok(()) => thread.join().unwrap(),
        Err(mpsc::RecvTimeoutError::Disconnected) => std::panic::resume_unwind(thread.join().unwrap_err()),
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("a call does not return"),
    }
}

fn stop(vm: &Vm) {
    let begin = Instant::now();
    vm.stop().unwrap();
    assert!(begin.elapsed() < STOP_PROMISE, "{:?}", begin.elapsed());
    assert!(matches!(vm.wait().unwrap(), Exit::Stopped));
}

/// Guests that nothing but a kick brings out of KVM.
fn lead_lives() {
    for guest in [TinyGuest::spin(), TinyGuest::halt()] {
        let kernel = Kernel::new(&guest);
        let started = || {
            let vm = tiny(&kernel).vcpus(2).build().unwrap();
            vm.start().unwrap();
            vm
        };
        let vm = started();
        vm.pause().unwrap();
        vm.resume().unwrap();
        vm.pause().unwrap();
        vm.pause().unwrap();
        vm.resume().unwrap();
        stop(&vm);
        drop(vm);
        let vm = started();
        vm.pause().unwrap();
        stop(&vm);
        drop(started());
    }
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn no_call_hangs_if_the_host_queues_no_signal() {
    let _none = SignalLimit::new(0);
    in_time(lead_lives);
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn no_call_hangs_if_others_have_used_up_what_the_host_queues() {
    let _few = SignalLimit::new(FEW);
    let _full = FullQueue::new();
    in_time(lead_lives);
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn a_vm_that_is_paused_over_and_over_uses_up_no_signals() {
    let _few = SignalLimit::new(FEW);
    in_time(|| {
        let kernel = Kernel::new(&TinyGuest::spin());
        let idle = tiny(&kernel).vcpus(2).build().unwrap();
        idle.start().unwrap();
        (0..2 * FEW).for_each(|_| idle.pause().unwrap());
        lead_lives();
    });
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn every_signal_that_is_allowed_kicks_and_none_is_delivered() {
    let kernel = Kernel::new(&TinyGuest::spin());
    let mut worked = Vec::new();
    for signal in 0..=32 {
        match tiny(&kernel).vcpus(2).kick_signal(signal).build() {
            Ok(vm) => {
                vm.start().unwrap();
                vm.pause().unwrap();
                vm.resume().unwrap();
                stop(&vm);
                worked.push(signal);
            }
            Err(error) => {
                assert_eq!(error.kind(), vmcell::ErrorKind::InvalidConfig);
                assert!(error.to_string().starts_with(&format!("signal {signal} ")), "{error:?}");
            }
        }
    }
    assert_eq!(worked, [1, 2, 3, 10, 12, 13, 14, 15, 16, 17, 23, 24, 25, 26, 27, 28, 29, 30]);
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn no_kick_is_lost_whenever_it_comes() {
    let guests = [(TinyGuest::spin(), libc::SIGUSR1), (TinyGuest::flood(b'x'), libc::SIGUSR2)];
    let vms = guests.map(|(guest, signal)| tiny(&Kernel::new(&guest)).kick_signal(signal).build().unwrap());
    vms.iter().for_each(|vm| vm.start().unwrap());
    in_time(move || {
        for round in 0..500 {
            vms.iter().for_each(|vm| vm.resume().unwrap());
            // Now the thread has not woken up, now it is about to enter the guest, now it is there.
            std::thread::sleep(Duration::from_micros(round % 100));
            vms.iter().for_each(|vm| vm.pause().unwrap());
        }
        vms.iter().for_each(stop);
    });
}

/// A VM of the layer below, and a vCPU whose guest runs `code` in real mode.
fn bare(code: &[u8]) -> (KvmVm, Vcpu) {
    let entry = GuestAddress(0x1000);
    let memory = GuestMemory::anonymous(&[(entry, 0x1000)]).unwrap();
    memory.write(entry, code).unwrap();
    let vm = Kvm::open().unwrap().create_vm().unwrap();
    vm.add_memory(&memory).unwrap();
    let vcpu = vm.create_vcpu(0).unwrap();
    aim(&vcpu, entry);
    (vm, vcpu)
}

fn aim(vcpu: &Vcpu, entry: GuestAddress) {
    let mut special = vcpu.special_registers().unwrap();
    special.cs.base = 0;
    special.cs.selector = 0;
    vcpu.set_special_registers(&special).unwrap();
    vcpu.set_registers(&Registers { rip: entry.0, rflags: 2, ..Registers::default() }).unwrap();
}

const SPIN: &[u8] = &[0xeb, 0xfe];

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn a_kick_before_the_first_run_ends_that_run() {
    in_time(|| {
        let (_vm, mut vcpu) = bare(SPIN);
        vcpu.kicker().kick();
        vcpu.kicker().kick();
        assert!(matches!(vcpu.run().unwrap(), VcpuExit::Interrupted));
        let kicker = vcpu.kicker();
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(50));
            kicker.kick();
        });
        let begin = Instant::now();
        assert!(matches!(vcpu.run().unwrap(), VcpuExit::Interrupted));
        assert!(begin.elapsed() >= Duration::from_millis(40), "the two kicks were one: {:?}", begin.elapsed());
    });
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn finishing_an_access_leaves_a_kick_to_the_next_run() {
    in_time(|| {
        let code = [&[0xe4, 0x40], SPIN].concat(); // in al, 0x40; spin
        let (_vm, mut vcpu) = bare(&code);
        assert!(matches!(vcpu.run().unwrap(), VcpuExit::PioRead { port: 0x40, .. }));
        vcpu.kicker().kick();
        assert!(matches!(vcpu.finish_access().unwrap(), VcpuExit::Interrupted));
        assert!(matches!(vcpu.run().unwrap(), VcpuExit::Interrupted));
    });
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn a_thread_that_runs_two_vcpus_gets_the_kick_of_each() {
    in_time(|| {
        let (vm, mut first) = bare(SPIN);
        let mut second = vm.create_vcpu(1).unwrap();
        aim(&second, GuestAddress(0x1000));
        let kickers = [first.kicker(), second.kicker()];
        kickers.iter().for_each(|kicker| kicker.kick());
        assert!(matches!(first.run().unwrap(), VcpuExit::Interrupted));
        assert!(matches!(second.run().unwrap(), VcpuExit::Interrupted));
        // The thread is in the first while the second is kicked, and comes back for it later.
        kickers.iter().rev().for_each(|kicker| kicker.kick());
        assert!(matches!(first.run().unwrap(), VcpuExit::Interrupted));
        assert!(matches!(second.run().unwrap(), VcpuExit::Interrupted));
    });
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn a_vcpu_that_moved_to_another_thread_is_kicked_there_by_its_new_signal() {
    in_time(|| {
        let (_vm, mut vcpu) = bare(SPIN);
        let kicker = vcpu.kicker();
        assert!(vcpu.set_kick_signal(libc::SIGSEGV).unwrap_err().to_string().contains("signal 11"));
        for signal in [libc::SIGUSR1, libc::SIGURG, libc::SIGUSR2] {
            vcpu.set_kick_signal(signal).unwrap();
            let (sender, moved) = mpsc::channel();
            let thread = std::thread::spawn(move || {
                sender.send(()).unwrap();
                assert!(matches!(vcpu.run().unwrap(), VcpuExit::Interrupted));
                vcpu
            });
            moved.recv().unwrap();
            std::thread::sleep(Duration::from_millis(20));
            kicker.kick();
            vcpu = thread.join().unwrap();
        }
        drop(vcpu);
        kicker.kick();
    });
}
