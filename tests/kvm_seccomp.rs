//! What the threads of a VM may ask of the kernel.

mod support;

use std::fs::File;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch, apply_filter};
use support::{Kernel, tiny};
use vmcell::testing::{TinyGuest, memory_disk};
use vmcell::{
    BalloonConfig, Console, ConsoleFile, Disk, Engine, ErrorKind, Exit, IoThread, MemoryBacking, MemoryConfig,
    RngConfig, Seccomp, Vm, VsockConfig, confine_this_thread,
};

const LIMIT: Duration = Duration::from_secs(30);
/// As `/proc` shows a thread that is filtered.
const FILTERED: &str = "2";

fn field(tid: i32, name: &str) -> String {
    let status = std::fs::read_to_string(format!("/proc/self/task/{tid}/status")).unwrap();
    let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    value.unwrap().trim().to_owned()
}

fn threads_of(vm: &Vm) -> Vec<i32> {
    vm.threads().into_iter().map(|thread| thread.tid).collect()
}

fn wait_until(mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < LIMIT);
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn disk(engine: Engine) -> Disk {
    Disk::from_file(memory_disk(1 << 20)).unwrap().engine(engine)
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn every_thread_of_a_vm_is_filtered_and_no_other_is() {
    let kernel = Kernel::new(&TinyGuest::flood(b'x'));
    let log = tempfile::tempdir().unwrap();
    let console = Console::file(ConsoleFile::new(log.path().join("log")).rotate(4096, 1));
    let builder = tiny(&kernel).vcpus(2).console(console).disk(disk(Engine::Auto)).disk(disk(Engine::Sync));
    let vm = builder.build().unwrap();
    vm.start().unwrap();
    // So the log's helper thread runs, and has opened files.
    wait_until(|| log.path().join("log.1").exists());
    let own: Vec<i32> = threads_of(&vm);
    assert_eq!(own.len(), 3);
    // The second vCPU is not in the guest yet, and its thread may be as slow as it likes.
    wait_until(|| own.iter().all(|tid| field(*tid, "Seccomp") == FILTERED));
    for tid in own {
        assert_eq!((field(tid, "Seccomp").as_str(), field(tid, "NoNewPrivs").as_str()), (FILTERED, "1"));
    }
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().map(|task| task.unwrap().file_name());
    let tasks: Vec<i32> = tasks.map(|task| task.to_str().unwrap().parse().unwrap()).collect();
    let helpers: Vec<i32> = tasks.into_iter().filter(|tid| field(*tid, "Name") == "vmcell-console").collect();
    assert!(!helpers.is_empty() && helpers.iter().all(|tid| field(*tid, "Seccomp") == FILTERED));
    let this = rustix::thread::gettid().as_raw_nonzero().get();
    assert_eq!((field(this, "Seccomp").as_str(), field(this, "NoNewPrivs").as_str()), ("0", "0"));
    vm.stop().unwrap();
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn a_callback_on_a_filtered_thread_opens_no_file_and_the_vm_goes_on() {
    let (sender, results) = channel();
    let console = Console::callback(move |_| {
        let _ = sender.send(File::open("/etc/hostname").map(drop).map_err(|e| e.raw_os_error()));
    });
    let kernel = Kernel::new(&TinyGuest::flood(b'x'));
    let vm = tiny(&kernel).console(console).seccomp(Seccomp::Refuse).build().unwrap();
    vm.start().unwrap();
    let refused = Err(Some(rustix::io::Errno::NOSYS.raw_os_error()));
    for _ in 0..10 {
        assert_eq!(results.recv_timeout(LIMIT).unwrap(), refused);
    }
    vm.stop().unwrap();
}

/// Where another filter refuses to have one more, for instance.
#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn a_vm_whose_filter_the_host_refuses_ends_before_its_guest_runs() {
    let kernel = Kernel::new(&TinyGuest::flood(b'x'));
    let log = tempfile::NamedTempFile::new().unwrap();
    let console = Console::file(ConsoleFile::new(log.path()));
    let builder = tiny(&kernel).io_thread(IoThread::new("mine").unwrap()).console(console);
    let work = move || {
        let refuse = SeccompAction::Errno(libc::EPERM.unsigned_abs());
        let rules = [(libc::SYS_seccomp, Vec::new())].into();
        let filter = SeccompFilter::new(rules, SeccompAction::Allow, refuse, TargetArch::x86_64).unwrap();
        apply_filter(&BpfProgram::try_from(filter).unwrap()).unwrap();
        let vm = builder.build().unwrap();
        vm.start().unwrap();
        vm.wait_timeout(LIMIT).unwrap()
    };
    let Exit::Failed(reason) = std::thread::spawn(work).join().unwrap() else { panic!("it ran") };
    assert_eq!(reason.to_string(), "the host does not filter system calls");
    assert_eq!(std::fs::read(log.path()).unwrap(), b"");
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn nothing_is_filtered_by_default_nor_on_a_thread_of_the_caller_s() {
    let kernel = Kernel::new(&TinyGuest::halt());
    let io_thread = IoThread::new("mine").unwrap();
    let vm = tiny(&kernel).io_thread(io_thread.clone()).build().unwrap();
    vm.start().unwrap();
    assert_eq!(field(io_thread.tid(), "Seccomp"), "0");
    vm.stop().unwrap();
    let plain = Vm::builder().memory_mib(16).boot(kernel.boot()).build().unwrap();
    plain.start().unwrap();
    assert!(threads_of(&plain).into_iter().all(|tid| field(tid, "Seccomp") == "0"));
    plain.stop().unwrap();
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn a_disk_that_takes_the_place_of_another_needs_no_ring_that_the_filter_forbids() {
    let kernel = Kernel::new(&TinyGuest::flood(b'x'));
    let vm = tiny(&kernel).disk(disk(Engine::Sync)).build().unwrap();
    vm.start().unwrap();
    let handle = vm.disk_handle(0).unwrap();
    handle.replace(disk(Engine::Auto), LIMIT).unwrap();
    let fallback = handle.status().fallback;
    assert!(fallback.is_some_and(|why| why.contains("filtered")));
    let error = handle.replace(disk(Engine::Uring), LIMIT).unwrap_err();
    assert!(error.chain().contains("filtered"), "{}", error.chain());
    vm.stop().unwrap();
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn a_guest_that_kvm_cannot_run_ends_its_vm_and_not_the_process() {
    // mov eax, 0xf0000000; jmp rax: there is no memory that it could execute.
    let kernel = Kernel::new(&TinyGuest::new(*b"\xb8\x00\x00\x00\xf0\xff\xe0"));
    let vm = tiny(&kernel).build().unwrap();
    vm.start().unwrap();
    let exit = vm.wait_timeout(LIMIT).unwrap();
    let Exit::Failed(reason) = exit else { panic!("{exit}") };
    assert!(reason.chain().contains("vCPU 0 was at address 0xf0000000"), "{}", reason.chain());
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn a_thread_that_may_only_keep_vms_starts_pauses_changes_ends_and_frees_them() {
    let kernel = Kernel::new(&TinyGuest::flood(b'x'));
    let builder = |name: &str| tiny(&kernel).vcpus(2).name(name).disk(disk(Engine::Auto)).console(Console::none());
    let vms = ["one", "two"].map(|name| builder(name).build().unwrap());
    let other = disk(Engine::Auto);
    let keeper = std::thread::spawn(move || {
        // A call that is not listed ends the test.
        confine_this_thread(Seccomp::Kill).unwrap();
        let [one, two] = vms;
        one.start().unwrap();
        assert!(threads_of(&one).len() == 3 && one.metrics().vm == "one");
        one.pause().unwrap();
        one.resume().unwrap();
        one.disk_handle(0).unwrap().replace(other, LIMIT).unwrap();
        two.start().unwrap();
        assert!(two.wait_timeout(Duration::from_millis(10)).is_err());
        one.stop().unwrap();
        two.request_stop();
        two.wait().unwrap();
        drop(one);
        two.discard();
    });
    keeper.join().unwrap();
    wait_until(|| Vm::discarded() == 0);
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn a_thread_that_may_only_keep_vms_takes_snapshots_of_them_with_which_others_begin() {
    [MemoryBacking::Anonymous, MemoryBacking::Memfd].into_iter().for_each(take_snapshots_under_the_filter);
}

fn take_snapshots_under_the_filter(backing: MemoryBacking) {
    let kernel = Kernel::new(&TinyGuest::flood(b'x'));
    let builder = tiny(&kernel).vcpus(2).disk(disk(Engine::Auto)).rng(RngConfig::new()).vsock(VsockConfig::new(3));
    let vm = builder.memory(MemoryConfig::mib(16).backing(backing)).balloon(BalloonConfig::new()).build().unwrap();
    let keeper = std::thread::spawn(move || {
        // A call that is not listed ends the test.
        confine_this_thread(Seccomp::Kill).unwrap();
        vm.start().unwrap();
        let first = vm.snapshot().unwrap();
        drop(first);
        vm.snapshot_with(|| Err(std::io::ErrorKind::Other.into())).unwrap_err();
        let second = vm.snapshot().unwrap();
        vm.stop().unwrap();
        second
    });
    let snapshot = keeper.join().unwrap();
    let (sender, output) = channel();
    let console = Console::callback(move |bytes| _ = sender.send(bytes.len()));
    let fork = Vm::builder().fork_of(&snapshot).disk(disk(Engine::Auto)).console(console).seccomp(Seccomp::Kill);
    let fork = fork.build().unwrap();
    // Built elsewhere, it may be kept by such a thread, too.
    let keeper = std::thread::spawn(move || {
        confine_this_thread(Seccomp::Kill).unwrap();
        fork.start().unwrap();
        output.recv_timeout(LIMIT).unwrap();
        fork.snapshot().unwrap();
        fork.stop().unwrap();
    });
    keeper.join().unwrap();
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn an_io_thread_of_the_caller_s_is_filtered_once_and_serves_as_before() {
    let io_thread = IoThread::new("mine").unwrap();
    io_thread.seccomp(Seccomp::Off).unwrap();
    assert_eq!(field(io_thread.tid(), "Seccomp"), "0");
    io_thread.seccomp(Seccomp::Kill).unwrap();
    assert_eq!(
        (field(io_thread.tid(), "Seccomp").as_str(), field(io_thread.tid(), "NoNewPrivs").as_str()),
        (FILTERED, "1")
    );
    let error = io_thread.seccomp(Seccomp::Refuse).unwrap_err();
    assert_eq!(
        (error.kind(), error.to_string().as_str()),
        (ErrorKind::InvalidState, "the thread's system calls are filtered already")
    );
    let kernel = Kernel::new(&TinyGuest::flood(b'x'));
    let (sender, output) = channel();
    let console = Console::callback(move |bytes| _ = sender.send(bytes.len()));
    let vm = tiny(&kernel).io_thread(io_thread.clone()).disk(disk(Engine::Auto)).console(console).build().unwrap();
    vm.start().unwrap();
    output.recv_timeout(LIMIT).unwrap();
    // The ring was made before.
    let alone = tiny(&kernel).disk(disk(Engine::Auto)).build().unwrap();
    let engine = |vm: &Vm| vm.disk_handle(0).unwrap().status().engine;
    assert_eq!(engine(&vm), engine(&alone));
    vm.stop().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let log = Console::file(ConsoleFile::new(folder.path().join("log")).rotate(4096, 1));
    let error = tiny(&kernel).io_thread(io_thread).console(log).build().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    assert!(error.to_string().starts_with("a console's file is limited in size"), "{error}");
}
