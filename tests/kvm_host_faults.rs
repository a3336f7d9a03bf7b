//! A host that has no descriptors, no address space, no room on its disks, or whose files change under a VM.
//!
//! A limit is the whole process's; `cargo xtask test` gives each of these tests a process of its own.

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use support::counts::{Counts, counter};
use support::{Footprint, Kernel, Transcript, is_long, tiny};
use vmcell::testing::{TinyGuest, memory_disk};
use vmcell::{Console, Disk, LoadMemory, MemoryBacking, MemoryConfig, SaveOptions, Snapshot, Status, Vm, VmBuilder};

const LIMIT: Duration = Duration::from_secs(60);
const STOP: Duration = Duration::from_millis(100);

fn limit(resource: Resource, current: u64) -> Rlimit {
    let before = getrlimit(resource);
    let maximum = before.maximum;
    setrlimit(resource, Rlimit { current: Some(current), maximum }).unwrap();
    before
}

/// With a disk and a console, and started.
fn furnished(kernel: &Kernel, transcript: &Transcript) -> VmBuilder {
    tiny(kernel).disk(Disk::from_file(memory_disk(1 << 20)).unwrap()).console(transcript.console())
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn a_process_without_descriptors_for_a_vm_is_told_so_and_keeps_nothing_of_it() {
    let (kernel, transcript) = (Kernel::new(&TinyGuest::print("hello")), Transcript::default());
    // Whatever is made once in a process is there from now on.
    drop(furnished(&kernel, &transcript).build().unwrap());
    let before = Footprint::now();
    let most = getrlimit(Resource::Nofile);
    for more in 0..200 {
        let builder = furnished(&kernel, &transcript);
        limit(Resource::Nofile, before.descriptors as u64 + more);
        let built = builder.build().and_then(|vm| vm.start().map(|()| vm));
        let Err(error) = built else {
            // Nothing that a VM does while it runs needs another descriptor.
            limit(Resource::Nofile, 3);
            let vm = built.unwrap();
            vm.wait_timeout(LIMIT).unwrap();
            drop(vm);
            limit(Resource::Nofile, most.current.unwrap_or(1024));
            assert_eq!(transcript.text(), "hello", "with {more} more descriptors");
            assert!(more > 5, "no attempt was refused for long");
            return assert_eq!(Footprint::now(), before);
        };
        limit(Resource::Nofile, most.current.unwrap_or(1024));
        let told = error.chain().to_string();
        assert!(told.contains("RLIMIT_NOFILE") || told.contains("os error 24"), "with {more} more descriptors: {told}");
        assert_eq!(Footprint::now(), before, "{told}");
    }
    panic!("a VM needs more than 200 descriptors");
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn a_process_without_address_space_for_a_guest_is_told_so_and_the_next_one_runs() {
    let (kernel, transcript) = (Kernel::new(&TinyGuest::print("hello")), Transcript::default());
    drop(furnished(&kernel, &transcript).build().unwrap());
    let before = Footprint::now();
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmSize:")).unwrap();
    let own = line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10;
    let most = limit(Resource::As, own + (512 << 20));
    let error = furnished(&kernel, &transcript).memory(MemoryConfig::mib(2048)).build().unwrap_err();
    let told = error.chain().to_string();
    assert!(told.contains("2048 MiB") || told.contains("Cannot allocate memory"), "{told}");
    let vm = furnished(&kernel, &transcript).build().unwrap();
    vm.start().unwrap();
    vm.wait_timeout(LIMIT).unwrap();
    drop(vm);
    setrlimit(Resource::As, most).unwrap();
    assert_eq!(transcript.text(), "hello");
    assert_eq!(Footprint::now(), before);
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn no_file_that_a_vm_was_given_is_mapped_so_that_none_can_be_cut_under_it() {
    let (kernel, folder) = (Kernel::new(&TinyGuest::echo()), tempfile::tempdir().unwrap());
    let at = |name: &str| folder.path().join(name);
    fs::write(at("root.img"), vec![7; 1 << 20]).unwrap();
    fs::write(at("initrd"), vec![8; 1 << 20]).unwrap();
    let transcript = Transcript::default();
    let disk = Disk::open(at("root.img")).unwrap();
    let builder = tiny(&kernel).boot(kernel.boot().initrd(at("initrd"))).disk(disk);
    let vm = builder.console(transcript.console().also(Console::file(at("log")))).build().unwrap();
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    for path in [&kernel.path, &at("root.img"), &at("initrd"), &at("log")] {
        let name = path.to_str().unwrap();
        assert!(!maps.contains(name), "{name} is mapped:\n{maps}");
    }
    for name in [&kernel.path, &at("root.img"), &at("initrd"), &at("log")] {
        fs::File::options().write(true).open(name).unwrap().set_len(0).unwrap();
    }
    vm.start().unwrap();
    assert_eq!(vm.write_console(b"still here"), 10);
    transcript.expect("still here", LIMIT);
    vm.stop().unwrap();
}

/// A file system of this many bytes that is unmounted with this; `None` if it takes rights that this process has not.
struct Small(tempfile::TempDir);

impl Small {
    fn mount(bytes: &str) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "tmpfs"]).arg(directory.path());
        mount.output().is_ok_and(|output| output.status.success()).then_some(Self(directory))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

fn stops_in_time(vm: &Vm) {
    let begin = Instant::now();
    vm.stop().unwrap();
    // On a crowded host it is another thread's turn now and then.
    assert!(begin.elapsed() < 10 * STOP, "{:?}", begin.elapsed());
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
#[allow(clippy::print_stderr, reason = "says why it was skipped")]
fn a_full_disk_behind_the_console_s_file_costs_output_and_nothing_else() {
    let Some(small) = Small::mount("64k") else {
        return eprintln!("skipped: no file system of our own can be mounted here (it takes root and mount)");
    };
    let kernel = Kernel::new(&TinyGuest::flood(b'x'));
    let transcript = Transcript::default();
    let log = small.path().join("log");
    // Room for a page, so that a guest that is emulated fills it soon.
    fs::write(small.path().join("ballast"), vec![0; 60 << 10]).unwrap();
    let console = Console::file(&log).also(transcript.console());
    let vm = tiny(&kernel).console(console).build().unwrap();
    vm.start().unwrap();
    let begin = Instant::now();
    while vm.console_status().sinks[0].last_error.is_none() {
        assert!(begin.elapsed() < 4 * LIMIT, "{:?}", vm.console_status());
        std::thread::sleep(Duration::from_millis(10));
    }
    let told = vm.console_status().sinks[0].last_error.as_ref().unwrap().chain().to_string();
    assert!(told.contains("No space left on device"), "{told}");
    // The other one is not held up, and neither is the guest.
    let seen = transcript.len();
    while transcript.len() < seen + 1000 {
        assert!(begin.elapsed() < 4 * LIMIT, "the guest's output stands still");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!((vm.status(), vm.device_failures()), (Status::Running, Vec::new()));
    stops_in_time(&vm);
    assert!(fs::metadata(&log).unwrap().len() <= 64 << 10);
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn a_fork_for_which_there_are_no_descriptors_leaves_nothing_and_its_source_goes_on() {
    let mut source = Counts::boot();
    assert_eq!(source.next(), 'a');
    let snapshot = source.vm.snapshot().unwrap();
    // Whatever is made once in a process is there from now on.
    drop(Counts::fork(&snapshot));
    let (before, most) = (Footprint::now(), getrlimit(Resource::Nofile).current.unwrap_or(1024));
    for more in 0..200 {
        limit(Resource::Nofile, before.descriptors as u64 + more);
        let built = Vm::builder().fork_of(&snapshot).build();
        limit(Resource::Nofile, most);
        let Err(error) = built else {
            assert!(more > 5, "no attempt was refused for long");
            drop(built);
            assert_eq!(Footprint::now(), before);
            assert_eq!((Counts::fork(&snapshot).next(), source.next()), ('b', 'b'));
            return;
        };
        let told = error.chain().to_string();
        assert!(told.contains("RLIMIT_NOFILE") || told.contains("os error 24"), "with {more} more descriptors: {told}");
        assert_eq!(Footprint::now(), before, "{told}");
    }
    panic!("a fork needs more than 200 descriptors");
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn a_snapshot_and_a_fork_for_which_there_is_no_address_space_leave_nothing_and_the_source_goes_on() {
    for backing in [MemoryBacking::Anonymous, MemoryBacking::Memfd] {
        let kernel = Kernel::new(&counter());
        let mut source = Counts::start(tiny(&kernel).memory(MemoryConfig::mib(1024).backing(backing)));
        assert_eq!(source.next(), 'a');
        let snapshot = source.vm.snapshot().unwrap();
        drop(Counts::fork(&snapshot));
        let before = Footprint::now();
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmSize:")).unwrap();
        let own = line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10;
        let most = limit(Resource::As, own + (256 << 20));
        let fork = Vm::builder().fork_of(&snapshot).build();
        setrlimit(Resource::As, most).unwrap();
        let told = fork.unwrap_err().chain();
        assert!(told.contains("1024 MiB") || told.contains("Cannot allocate memory"), "{told}");
        assert_eq!(Footprint::now(), before, "{told}");
        assert_eq!((Counts::fork(&snapshot).next(), source.next()), ('b', 'b'));
        source.vm.snapshot().unwrap();
    }
}

/// What this process has in memory, in KiB.
fn resident_kib() -> u64 {
    let text = fs::read_to_string("/proc/self/smaps_rollup").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("Rss:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn forks_and_snapshots_that_are_gone_leave_no_descriptor_thread_mapping_or_memory() {
    let folder = tempfile::tempdir().unwrap();
    let mut source = Counts::boot();
    assert_eq!(source.next(), 'a');
    let once = |source: &mut Counts| {
        let snapshot = source.vm.snapshot().unwrap();
        let mut fork = Counts::fork(&snapshot);
        assert_eq!(fork.next(), 'b');
        fork.vm.snapshot().unwrap().save_with(folder.path().join("vm"), &SaveOptions::new().leave_in_cache()).unwrap();
        let loaded = Snapshot::load(folder.path().join("vm")).unwrap();
        assert_eq!(Counts::fork(&loaded).next(), 'c');
        fork.vm.suspend(folder.path().join("fork"), LoadMemory::Map).unwrap();
        fork.vm.resume().unwrap();
        assert_eq!(fork.next(), 'c');
    };
    (0..5).for_each(|_| once(&mut source));
    let (before, resident) = (Footprint::now(), resident_kib());
    (0..if is_long() { 1000 } else { 20 }).for_each(|_| once(&mut source));
    assert_eq!(Footprint::now(), before);
    let grown = resident_kib().saturating_sub(resident);
    assert!(grown < 4096, "{grown} KiB");
    assert_eq!(source.next(), 'b');
}
