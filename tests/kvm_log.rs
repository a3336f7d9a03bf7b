//! What is said of a VM while it runs, and to whom.

mod support;

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use support::{Kernel, bring_up, tiny};
use vmcell::block::{DiskBackend, DiskInfo, Done, Operation, Tag};
use vmcell::event::Io;
use vmcell::testing::TinyGuest;
use vmcell::{Console, Disk, Exit, LogLevel, LogRecord, Vm, VmBuilder};

/// Keeps what was said, with the name of the thread that said it.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<(LogLevel, String, String)>>>);

impl Log {
    fn of(&self, builder: VmBuilder) -> VmBuilder {
        let log = self.clone();
        builder.log(move |record| log.hear(record))
    }

    fn hear(&self, record: &LogRecord<'_>) {
        let thread = std::thread::current().name().unwrap_or_default().to_owned();
        self.0.lock().unwrap().push((record.level, record.to_string(), thread));
    }

    fn lines(&self) -> Vec<(LogLevel, String, String)> {
        self.0.lock().unwrap().clone()
    }

    /// Without where: the test's own thread has any name. Nor whether this host has io_uring.
    fn texts(&self) -> Vec<(LogLevel, String)> {
        let lines = self.lines().into_iter().map(|(level, text, _)| (level, text));
        lines.filter(|(_, text)| !text.contains("uses the engine")).collect()
    }
}

fn run(vm: &Vm) -> Exit {
    vm.start().unwrap();
    vm.wait_timeout(Duration::from_secs(30)).unwrap()
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn the_start_and_each_end_are_told_and_all_of_it_when_wait_returns() {
    let ends = [
        (TinyGuest::power_off(), LogLevel::Info, "web: vm: ended: the guest turned itself off"),
        (TinyGuest::triple_fault(), LogLevel::Warn, "web: vm: ended: the guest reset itself by a triple fault"),
    ];
    for (guest, level, how) in ends {
        let (kernel, log) = (Kernel::new(&guest), Log::default());
        let vm = log.of(tiny(&kernel).name("web")).build().unwrap();
        assert_eq!(log.texts(), []);
        run(&vm);
        let start = (LogLevel::Info, "web: vm: starts with 1 vCPU".to_owned());
        assert_eq!(log.texts(), [start, (level, how.to_owned())]);
        assert_eq!(log.lines()[1].2, "web:vcpu0");
    }
    let (kernel, log) = (Kernel::new(&TinyGuest::spin()), Log::default());
    let vm = log.of(tiny(&kernel).vcpus(2)).build().unwrap();
    vm.start().unwrap();
    drop(vm);
    let texts = log.texts();
    assert_eq!(texts[0], (LogLevel::Info, "vm: starts with 2 vCPUs".to_owned()));
    assert_eq!(texts[1..], [(LogLevel::Info, "vm: ended: the VM was stopped".to_owned())]);
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn a_start_that_fails_is_told_once_with_its_reason() {
    for fails_at in 0..3 {
        let (kernel, log) = (Kernel::new(&TinyGuest::spin()), Log::default());
        let builder = tiny(&kernel).vcpus(3).on_thread_start(move |role| match role {
            vmcell::ThreadRole::Vcpu(index) if index == fails_at => Err(std::io::ErrorKind::PermissionDenied.into()),
            _ => Ok(()),
        });
        let vm = log.of(builder).build().unwrap();
        let error = vm.start().unwrap_err();
        vm.wait_timeout(Duration::from_secs(30)).unwrap();
        let start = (LogLevel::Info, "vm: starts with 3 vCPUs".to_owned());
        let end = (LogLevel::Error, format!("vm: ended: the VM failed: {}", error.chain()));
        assert_eq!(log.texts(), [start, end]);
    }
}

/// A disk whose backend panics at once.
struct Broken;

impl DiskBackend for Broken {
    fn info(&self) -> DiskInfo {
        DiskInfo::new(4096)
    }

    fn submit(&mut self, _io: &mut Io, _tag: Tag, _operation: Operation) -> Result<(), Operation> {
        panic!("on purpose")
    }

    fn completed(&mut self, _io: &mut Io) -> Option<Done> {
        panic!("on purpose")
    }
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn a_device_that_fails_is_told_once_with_its_name_and_why_and_on_its_thread() {
    let (kernel, log) = (Kernel::new(&bring_up()), Log::default());
    let builder = tiny(&kernel).name("web").disk(Disk::backend(Box::new(Broken)).never_blocks());
    let vm = log.of(builder).build().unwrap();
    vm.start().unwrap();
    let begun = Instant::now();
    while !log.texts().iter().any(|(level, _)| *level == LogLevel::Error) {
        assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", log.lines());
        std::thread::sleep(Duration::from_millis(1));
    }
    vm.stop().unwrap();
    let errors: Vec<_> = log.lines().into_iter().filter(|(level, ..)| *level == LogLevel::Error).collect();
    let text = "web: disk0: failed for good: the backend panicked: on purpose";
    assert_eq!(errors, [(LogLevel::Error, text.to_owned(), "web:io".to_owned())]);
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn output_that_no_reader_takes_is_told_when_the_vm_ends() {
    let (kernel, log) = (Kernel::new(&TinyGuest::flood(b'x')), Log::default());
    let (reader, writer) = std::io::pipe().unwrap();
    let console = Console::descriptors(OwnedFd::from(writer), None);
    let vm = log.of(tiny(&kernel).console(console)).build().unwrap();
    vm.start().unwrap();
    let begun = Instant::now();
    while vm.console_dropped() == 0 {
        assert!(begun.elapsed() < Duration::from_secs(60));
        std::thread::sleep(Duration::from_millis(5));
    }
    vm.stop().unwrap();
    vm.wait().unwrap();
    let warned = |(level, text): &(LogLevel, String)| {
        *level == LogLevel::Warn && text.starts_with("console: ") && text.contains("because it was too slow")
    };
    assert!(log.texts().iter().any(warned), "{:?}", log.lines());
    drop(reader);
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn a_function_that_panics_harms_nothing_and_is_not_called_again() {
    let kernel = Kernel::new(&TinyGuest::power_off());
    let calls = Arc::new(Mutex::new(0));
    let counts = calls.clone();
    let vm = tiny(&kernel)
        .log(move |_| {
            *counts.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) += 1;
            panic!("on purpose")
        })
        .build()
        .unwrap();
    assert!(matches!(run(&vm), Exit::Shutdown));
    assert_eq!(*calls.lock().unwrap_or_else(|poisoned| poisoned.into_inner()), 1);
}
