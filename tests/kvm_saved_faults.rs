//! Snapshots in files at bad moments and of bad content: natively, with a guest that counts what is typed.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use support::counts::Counts;
use support::is_long;
use tempfile::TempDir;
use vmcell::{
    BalloonConfig, Disk, ErrorKind, LoadMemory, MemoryBacking, RngConfig, SaveOptions, Snapshot, Status, Vm,
    VsockConfig,
};

const STOP: Duration = Duration::from_millis(100);

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

/// The same moments in each run.
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *state >> 33
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn a_file_that_takes_the_place_of_one_that_it_builds_on_is_refused_and_that_one_stays() {
    let folder = Folder::new();
    let mut source = Counts::boot();
    let first = source.vm.snapshot().unwrap();
    first.save(folder.path("one")).unwrap();
    assert_eq!(source.next(), 'a');
    let second = source.vm.snapshot().unwrap();
    second.save_with(folder.path("two"), &SaveOptions::new().since(&first, "one")).unwrap();
    assert_eq!(source.next(), 'b');
    let third = source.vm.snapshot().unwrap();
    for replaced in ["one", "two"] {
        let error = third.save_with(folder.path(replaced), &SaveOptions::new().since(&second, "two")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Snapshot);
        assert!(error.to_string().contains("take the place of a file that it builds on"), "{error}");
    }
    assert_eq!(Counts::fork(&Snapshot::load(folder.path("two")).unwrap()).next(), 'b');
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn a_suspended_vm_whose_ram_is_to_be_read_has_nothing_of_the_file_mapped_so_that_nobody_can_cut_it_under_it() {
    let folder = Folder::new();
    let mut vm = Counts::boot();
    assert_eq!(vm.next(), 'a');
    vm.vm.suspend(folder.path("vm"), LoadMemory::Copy).unwrap();
    let is_mapped = |path: &Path| fs::read_to_string("/proc/self/maps").unwrap().contains(path.to_str().unwrap());
    assert!(!is_mapped(&folder.path("vm")));
    let whole = fs::read(folder.path("vm")).unwrap();
    fs::File::options().write(true).open(folder.path("vm")).unwrap().set_len(8192).unwrap();
    let error = vm.vm.resume().unwrap_err();
    assert_eq!((error.kind(), vm.vm.status()), (ErrorKind::Snapshot, Status::Paused));
    let memory = vm.vm.metrics_with_memory().unwrap().memory;
    assert!(memory.is_some_and(|memory| memory.own_bytes < 1 << 20), "{memory:?}");
    assert_eq!(memory, vm.vm.memory_use().ok());
    // To the same file, which is open.
    fs::write(folder.path("vm"), &whole).unwrap();
    vm.vm.resume().unwrap();
    assert_eq!(vm.next(), 'b');
    vm.vm.suspend(folder.path("vm"), LoadMemory::Map).unwrap();
    assert!(is_mapped(&folder.path("vm")));
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn a_stop_at_any_moment_of_a_suspend_or_a_resume_is_as_quick_as_ever() {
    let (folder, mut state) = (Folder::new(), 3);
    for round in 0..if is_long() { 300 } else { 12 } {
        let memory = [LoadMemory::Copy, LoadMemory::Map][round % 2];
        let vm = Counts::boot_with([MemoryBacking::Anonymous, MemoryBacking::Memfd][round / 2 % 2], 8 << 20).vm;
        let (vm, path) = (&vm, folder.path("vm"));
        std::thread::scope(|scope| {
            let sleeping = scope.spawn(move || while vm.suspend(&path, memory).and_then(|()| vm.resume()).is_ok() {});
            std::thread::sleep(Duration::from_micros(random(&mut state) % 60_000));
            let began = Instant::now();
            let stopped = vm.stop();
            let took = began.elapsed();
            assert!(stopped.is_ok() && took < STOP, "{stopped:?} in {took:?} in round {round}");
            sleeping.join().unwrap();
        });
        vm.wait().unwrap();
    }
    // Whatever was saved last is whole, and nothing else is there.
    assert_eq!(fs::read_dir(folder.path("")).unwrap().count(), 1);
    assert_eq!(Counts::fork(&Snapshot::load(folder.path("vm")).unwrap()).next(), 'a');
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn threads_that_pause_resume_suspend_and_copy_a_vm_at_once_leave_it_whole() {
    let folder = Folder::new();
    let mut source = Counts::boot();
    assert_eq!(source.next(), 'a');
    let (vm, over) = (&source.vm, AtomicBool::new(false));
    std::thread::scope(|scope| {
        let busy = |call: &'static (dyn Fn(&Vm, &Path) -> vmcell::Result<()> + Sync), name| {
            let (path, over) = (folder.path(name), &over);
            scope.spawn(move || {
                while !over.load(Ordering::SeqCst) {
                    if let Err(error) = call(vm, &path) {
                        // In the midst of another thread's calls.
                        assert_eq!(error.kind(), ErrorKind::InvalidState, "{}", error.chain());
                    }
                }
            })
        };
        busy(&|vm, _| vm.pause(), "");
        busy(&|vm, _| vm.resume(), "");
        busy(&|vm, _| vm.snapshot().map(drop), "");
        busy(&|vm, path| vm.suspend(path, LoadMemory::Copy), "one");
        busy(&|vm, path| vm.suspend(path, LoadMemory::Map), "two");
        std::thread::sleep(Duration::from_secs(if is_long() { 30 } else { 2 }));
        over.store(true, Ordering::SeqCst);
    });
    source.vm.resume().unwrap();
    assert_eq!([source.next(), source.next()], ['b', 'c']);
}

/// A file whose machine is another.
struct Machine {
    whole: Vec<u8>,
    pub text: String,
}

impl Machine {
    const PAGE: usize = 4096;

    fn of(path: &Path) -> Self {
        let whole = fs::read(path).unwrap();
        let number = |at: usize| u64::from_le_bytes(whole[at..at + 8].try_into().unwrap()) as usize;
        let text = String::from_utf8(whole[number(32)..number(32) + number(40)].to_vec()).unwrap();
        Self { whole, text }
    }

    /// The same file, behind whose end another machine lies.
    fn with(&self, text: &str) -> Vec<u8> {
        let mut bytes = self.whole.clone();
        let at = bytes.len().next_multiple_of(Self::PAGE);
        bytes.resize(at, 0);
        bytes.extend(text.as_bytes());
        bytes[32..40].copy_from_slice(&(at as u64).to_le_bytes());
        bytes[40..48].copy_from_slice(&(text.len() as u64).to_le_bytes());
        bytes[48..52].copy_from_slice(&crc32fast::hash(text.as_bytes()).to_le_bytes());
        bytes[12..16].fill(0);
        let checksum = crc32fast::hash(&bytes[..Self::PAGE]);
        bytes[12..16].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// Spoils a number or some digits of the bytes in it.
    fn spoilt(&self, state: &mut u64) -> String {
        let mut text = self.text.clone();
        for _ in 0..1 + random(state) % 3 {
            let from = random(state) as usize % text.len();
            let Some(at) = text[from..].find(|c: char| c.is_ascii_digit()).map(|at| from + at) else { continue };
            let len = text[at..].find(|c: char| !c.is_ascii_digit()).unwrap_or(1);
            let numbers =
                ["0", "1", "2", "255", "256", "65535", "4294967295", "9223372036854775808", "18446744073709551615"];
            let number = match random(state) % 4 {
                0 => random(state).to_string(),
                1 => format!("{:0len$}", random(state) % 10u64.pow(len.min(9) as u32)),
                _ => numbers[random(state) as usize % numbers.len()].to_owned(),
            };
            text.replace_range(at..at + len, &number);
        }
        text
    }
}

/// Where code that is no test's panics from now on, in whatever thread, and whoever catches it.
fn panics_outside_of_tests() -> Arc<Mutex<Vec<String>>> {
    let (panics, before) = (Arc::<Mutex<Vec<String>>>::default(), std::panic::take_hook());
    let seen = Arc::clone(&panics);
    std::panic::set_hook(Box::new(move |panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        if !place.starts_with("tests/") {
            seen.lock().unwrap().push(place);
        }
        before(panic);
    }));
    panics
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn a_machine_whose_numbers_were_spoilt_is_refused_or_runs_and_harms_nobody() {
    let folder = Folder::new();
    fs::write(folder.path("disk"), vec![0; 1 << 20]).unwrap();
    let disk = || Disk::open(folder.path("disk")).unwrap();
    let kernel = support::Kernel::new(&support::counts::counter());
    let builder = support::tiny(&kernel).vcpus(2).rng(RngConfig::new()).balloon(BalloonConfig::new());
    let builder = builder.vsock(VsockConfig::new(3)).disk(disk());
    let mut source = Counts::start(builder);
    assert_eq!(source.next(), 'a');
    source.vm.snapshot().unwrap().save(folder.path("vm")).unwrap();
    drop(source);
    let (machine, panics) = (Machine::of(&folder.path("vm")), panics_outside_of_tests());
    let (mut state, mut built) = (11, 0);
    for round in 0..if is_long() { 3000 } else { 150 } {
        let text = if round == 0 { machine.text.clone() } else { machine.spoilt(&mut state) };
        fs::write(folder.path("bad"), machine.with(&text)).unwrap();
        let Ok(snapshot) = Snapshot::load_with(folder.path("bad"), LoadMemory::Copy) else { continue };
        let console = vmcell::Console::callback(|_| {});
        match Vm::builder().fork_of(&snapshot).disk(disk()).console(console).build() {
            Err(error) => assert!(!error.to_string().is_empty()),
            Ok(vm) => {
                built += 1;
                if vm.start().is_ok() {
                    std::thread::sleep(Duration::from_micros(500));
                    let _ = vm.snapshot().map(|snapshot| snapshot.save(folder.path("again")));
                }
                let began = Instant::now();
                vm.stop().unwrap();
                assert!(began.elapsed() < 3 * STOP, "{:?}", began.elapsed());
            }
        }
    }
    assert!(built > 20, "{built} were built");
    assert_eq!(*panics.lock().unwrap(), [""; 0]);
}
