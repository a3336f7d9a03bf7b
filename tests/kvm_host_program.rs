//! The host program keeps control: its signals, its output and its threads are its own.

mod support;

use std::time::{Duration, Instant};

use rustix::process::{Signal, getpid, kill_process};
use support::{Kernel, Transcript, tiny};
use vmcell::Exit;
use vmcell::testing::TinyGuest;

/// A line of a `status` file under `/proc`, as a mask.
fn mask(status: &str, name: &str) -> u64 {
    let text = std::fs::read_to_string(status).expect("/proc is there");
    let line = text.lines().find_map(|line| line.strip_prefix(name)).expect("the line is there");
    u64::from_str_radix(line.trim_start_matches(':').trim(), 16).expect("a mask")
}

/// The signals that have a handler, and those that are ignored.
fn dispositions() -> (u64, u64) {
    (mask("/proc/self/status", "SigCgt"), mask("/proc/self/status", "SigIgn"))
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn no_signal_handler_appears() {
    let before = dispositions();
    let kernel = Kernel::new(&TinyGuest::spin());
    let vm = tiny(&kernel).vcpus(2).build().unwrap();
    vm.start().unwrap();
    vm.pause().unwrap();
    vm.resume().unwrap();
    assert_eq!(dispositions(), before);
    vm.stop().unwrap();
    assert_eq!(dispositions(), before);
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn our_threads_block_every_signal_and_the_callers_thread_none() {
    let own = "/proc/thread-self/status";
    let before = mask(own, "SigBlk");
    let kernel = Kernel::new(&TinyGuest::spin());
    let vm = tiny(&kernel).vcpus(2).build().unwrap();
    vm.start().unwrap();
    assert_eq!(mask(own, "SigBlk"), before);
    let limit = Instant::now() + Duration::from_secs(10);
    let ours = loop {
        // A thread gives itself its name, a moment after it was made.
        let ours = threads_named("vmcell");
        if ours.len() == 3 {
            break ours;
        }
        assert!(Instant::now() < limit, "two vCPUs and one I/O thread, but {ours:?}");
    };
    for (name, task) in ours {
        let blocked = mask(&format!("{task}/status"), "SigBlk");
        // SIGKILL and SIGSTOP cannot be blocked, 32 and 33 are the C library's own, and a thread in the guest lets its
        // kick through.
        let open = !blocked & !(1 << 8 | 1 << 18 | 0b11 << 31);
        assert!(open & !(1 << (vmcell::DEFAULT_KICK_SIGNAL - 1)) == 0, "{name}: {blocked:x}");
    }
}

/// Name and folder under `/proc` of this process's threads whose names begin so.
fn threads_named(prefix: &str) -> Vec<(String, String)> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().map(|entry| entry.unwrap().path());
    tasks
        .map(|task| (std::fs::read_to_string(task.join("comm")).unwrap_or_default(), task.display().to_string()))
        .filter(|(name, _)| name.starts_with(prefix))
        .collect()
}

/// Some runtimes send themselves signals all the time (Go preempts with SIGURG); its default is to be ignored.
#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn a_storm_of_signals_disturbs_no_guest() {
    let kernel = Kernel::new(&TinyGuest::echo());
    let transcript = Transcript::default();
    let vm = tiny(&kernel).console(transcript.console()).build().unwrap();
    vm.start().unwrap();
    let end = Instant::now() + Duration::from_millis(500);
    let mut sent = String::new();
    while Instant::now() < end {
        for _ in 0..100 {
            kill_process(getpid(), Signal::URG).unwrap();
        }
        assert_eq!(vm.write_console(b"."), 1);
        sent.push('.');
    }
    assert!(transcript.wait_until(Duration::from_secs(30), |text| text.len() >= sent.len()));
    vm.stop().unwrap();
    assert!(matches!(vm.wait().unwrap(), Exit::Stopped));
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn a_callback_that_panics_harms_nobody_else() {
    let flood = Kernel::new(&TinyGuest::flood(b'x'));
    let shared = vmcell::IoThread::new("shared").unwrap();
    let broken = tiny(&flood)
        .io_thread(shared.clone())
        .console(vmcell::Console::callback(|_| panic!("a callback of the test panics, as it should")))
        .build()
        .unwrap();
    broken.start().unwrap();
    let hello = Kernel::new(&TinyGuest::print("hello"));
    let transcript = Transcript::default();
    let other = tiny(&hello).io_thread(shared).console(transcript.console()).build().unwrap();
    other.start().unwrap();
    assert!(matches!(other.wait_timeout(Duration::from_secs(30)).unwrap(), Exit::Shutdown));
    assert_eq!(transcript.text(), "hello");
    broken.stop().unwrap();
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn a_callback_may_use_and_even_drop_the_vm() {
    let kernel = Kernel::new(&TinyGuest::flood(b'x'));
    let slot = std::sync::Arc::new(std::sync::Mutex::new(None::<vmcell::Vm>));
    let (sender, dropped) = std::sync::mpsc::channel();
    let callback_slot = slot.clone();
    let console = vmcell::Console::callback(move |_| {
        if let Some(vm) = callback_slot.lock().unwrap().take() {
            vm.stop().unwrap();
            drop(vm);
            sender.send(()).unwrap();
        }
    });
    let vm = tiny(&kernel).console(console).build().unwrap();
    let mut held = slot.lock().unwrap();
    vm.start().unwrap();
    *held = Some(vm);
    drop(held);
    dropped.recv_timeout(Duration::from_secs(10)).expect("the callback comes back from dropping its VM");
}
