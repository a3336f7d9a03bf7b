//! Snapshots in files: natively, with a guest that counts what is typed.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use support::counts::Counts;
use tempfile::TempDir;
use vmcell::{ErrorKind, GuestAddress, LoadMemory, MemoryBacking, SaveOptions, Snapshot, Status, Vm};

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn a_guest_goes_on_from_a_file_when_its_source_is_gone() {
    let folder = Folder::new();
    for backing in [MemoryBacking::Anonymous, MemoryBacking::Memfd] {
        let mut source = Counts::boot_on(backing);
        assert_eq!([source.next(), source.next()], ['a', 'b']);
        source.vm.snapshot().unwrap().save(folder.path("vm")).unwrap();
        assert_eq!(source.next(), 'c');
        drop(source);
        for memory in [LoadMemory::Copy, LoadMemory::Map] {
            let snapshot = Snapshot::load_with(folder.path("vm"), memory).unwrap();
            for _ in 0..2 {
                let mut fork = Counts::fork(&snapshot);
                assert_eq!([fork.next(), fork.next()], ['c', 'd'], "{backing:?} {memory:?}");
            }
        }
    }
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn a_guest_from_a_file_has_zeroes_where_memory_was_left_out() {
    let (folder, mut source) = (Folder::new(), Counts::boot());
    assert_eq!([source.next(), source.next()], ['a', 'b']);
    let snapshot = source.vm.snapshot().unwrap();
    // Where the guest keeps its count.
    let options = SaveOptions::new().leave_out(GuestAddress(0x20_0000), 4);
    snapshot.save_with(folder.path("vm"), &options).unwrap();
    assert_eq!(Counts::fork(&Snapshot::load(folder.path("vm")).unwrap()).next(), 'a');
    assert_eq!(Counts::fork(&snapshot).next(), 'c');
    for (start, len) in [(0xff_ffff, 2), (u64::MAX, 1), (1 << 40, 1)] {
        let options = SaveOptions::new().leave_out(GuestAddress(start), len);
        let error = snapshot.save_with(folder.path("vm"), &options).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        assert!(error.to_string().contains("which is not within the guest's RAM"), "{error}");
    }
    let many = (0..1025).fold(SaveOptions::new(), |options, page| options.leave_out(GuestAddress(page * 4096), 1));
    let error = snapshot.save_with(folder.path("vm"), &many).unwrap_err().to_string();
    assert!(error.ends_with("1025 ranges are to be left out, allowed are 1024"), "{error}");
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn what_changed_since_is_saved_by_itself_and_goes_on_with_what_it_builds_on() {
    let folder = Folder::new();
    let mut source = Counts::boot();
    let mut older: Option<(Snapshot, String)> = None;
    for round in 0..4u8 {
        assert_eq!(source.next(), char::from(b'a' + round));
        let (snapshot, name) = (source.vm.snapshot().unwrap(), format!("vm{round}"));
        let options = match &older {
            Some((older, name)) => SaveOptions::new().since(older, name).leave_in_cache(),
            None => SaveOptions::new(),
        };
        snapshot.save_with(folder.path(&name), &options).unwrap();
        older = Some((snapshot, name));
    }
    drop((source, older));
    let size = |name| fs::metadata(folder.path(name)).unwrap().len();
    assert!(size("vm3") < size("vm0"), "{} {}", size("vm3"), size("vm0"));
    for memory in [LoadMemory::Copy, LoadMemory::Map] {
        for round in 0..4u8 {
            let snapshot = Snapshot::load_with(folder.path(&format!("vm{round}")), memory).unwrap();
            assert_eq!(Counts::fork(&snapshot).next(), char::from(b'b' + round), "{memory:?}");
        }
    }
    // A fork of what was loaded is saved on top of that.
    let loaded = Snapshot::load(folder.path("vm3")).unwrap();
    let mut fork = Counts::fork(&loaded);
    assert_eq!(fork.next(), 'e');
    let options = SaveOptions::new().since(&loaded, "vm3");
    fork.vm.snapshot().unwrap().save_with(folder.path("vm4"), &options).unwrap();
    assert!(size("vm4") < size("vm0"));
    assert_eq!(Counts::fork(&Snapshot::load(folder.path("vm4")).unwrap()).next(), 'f');
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn a_file_that_is_changed_cut_and_deleted_after_loading_changes_nothing() {
    let folder = Folder::new();
    let mut source = Counts::boot();
    assert_eq!(source.next(), 'a');
    source.vm.snapshot().unwrap().save(folder.path("vm")).unwrap();
    let snapshot = Snapshot::load(folder.path("vm")).unwrap();
    fs::write(folder.path("vm"), vec![0xff; 1 << 20]).unwrap();
    let mut fork = Counts::fork(&snapshot);
    assert_eq!(fork.next(), 'b');
    fs::write(folder.path("vm"), b"").unwrap();
    assert_eq!(fork.next(), 'c');
    fs::remove_file(folder.path("vm")).unwrap();
    assert_eq!(Counts::fork(&snapshot).next(), 'b');
    let error = Snapshot::load(folder.path("vm")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Snapshot);
    assert!(error.chain().contains("vm: it cannot be opened: No such file"), "{}", error.chain());
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn it_is_saved_while_the_guest_goes_on_and_holds_the_moment_of_the_snapshot() {
    let folder = Folder::new();
    let mut source = Counts::boot();
    assert_eq!(source.next(), 'a');
    let snapshot = source.vm.snapshot().unwrap();
    let saved = Arc::new(AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let slowly = SaveOptions::new().bytes_per_second(256 << 10);
            snapshot.save_with(folder.path("vm"), &slowly).unwrap();
            saved.store(true, Ordering::SeqCst);
        });
        assert_eq!([source.next(), source.next()], ['b', 'c']);
        assert!(!saved.load(Ordering::SeqCst), "it was not saved slowly");
    });
    assert_eq!(Counts::fork(&Snapshot::load(folder.path("vm")).unwrap()).next(), 'b');
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn what_is_to_build_on_another_snapshot_or_is_saved_at_no_speed_is_refused() {
    let folder = Folder::new();
    let source = Counts::boot();
    let (one, two) = (source.vm.snapshot().unwrap(), source.vm.snapshot().unwrap());
    one.save(folder.path("one")).unwrap();
    let refused = |options: SaveOptions| {
        let error = two.save_with(folder.path("two"), &options).unwrap_err();
        assert!(!folder.path("two").exists());
        error.chain()
    };
    assert!(
        refused(SaveOptions::new().since(&two, "one")).ends_with("it is to build on one, which holds another snapshot")
    );
    assert!(refused(SaveOptions::new().since(&one, "none")).contains("it is to build on none: it cannot be opened"));
    for rate in [0, 65_535] {
        let message = refused(SaveOptions::new().bytes_per_second(rate));
        assert!(
            message.contains(&format!("{rate} bytes a second were asked for, allowed are 65536 or more")),
            "{message}"
        );
    }
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn a_machine_that_another_program_made_up_is_refused_or_harms_nobody() {
    let folder = Folder::new();
    let source = Counts::boot();
    source.vm.snapshot().unwrap().save(folder.path("vm")).unwrap();
    let whole = fs::read(folder.path("vm")).unwrap();
    let field = |at: usize| u64::from_le_bytes(whole[at..at + 8].try_into().unwrap()) as usize;
    let (offset, len) = (field(32), field(40));
    let machine = String::from_utf8(whole[offset..offset + len].to_vec()).unwrap();
    let load = |machine: String| {
        // As long as it was, so that nothing else moves.
        let machine = format!("{machine:len$}");
        assert_eq!(machine.len(), len);
        let mut bytes = whole.clone();
        bytes[offset..offset + len].copy_from_slice(machine.as_bytes());
        bytes[48..52].copy_from_slice(&crc32fast::hash(machine.as_bytes()).to_le_bytes());
        bytes[12..16].fill(0);
        let checksum = crc32fast::hash(&bytes[..4096]);
        bytes[12..16].copy_from_slice(&checksum.to_le_bytes());
        fs::write(folder.path("bad"), &bytes).unwrap();
        let snapshot = Snapshot::load(folder.path("bad"))?;
        Vm::builder().fork_of(&snapshot).build()
    };
    load(machine.clone()).unwrap().start().unwrap();
    // The vendor is another one if a letter of its name is.
    let vendor = machine.find(r#""function":0,"#).unwrap();
    let digit = machine[vendor..].find(r#""ebx":"#).unwrap() + vendor + 7;
    let mut other = machine.clone();
    other.replace_range(digit..=digit, if &machine[digit..=digit] == "1" { "2" } else { "1" });
    let error = load(other).expect_err("another CPU");
    assert!(error.to_string().starts_with("the guest was saved on another CPU: it is of the vendor"), "{error}");
    for (from, to, expected) in [
        (r#""vcpus":1,"#, r#""vcpus":2,"#, "the states of 1 vCPUs, and 2 are described"),
        (r#""mib":16"#, r#""mib":99"#, "are described"),
        (r#""mib":16"#, r#""mib":1"#, "its description is refused"),
        (r#""xsave":""#, r#""xsave":"zz"#, "its machine cannot be read"),
        (r#"{"config""#, r#"{"konfig""#, "its machine cannot be read"),
    ] {
        assert!(machine.contains(from), "{from}");
        let shorter = machine.replacen(from, to, 1);
        let shorter = shorter.chars().take(len).collect();
        let error = load(shorter).err().unwrap_or_else(|| panic!("{from} became {to}"));
        assert!(error.chain().contains(expected), "{from} became {to}: {}", error.chain());
    }
}

/// What this process alone has in memory, in KiB.
fn own_kib() -> u64 {
    let text = fs::read_to_string("/proc/self/smaps_rollup").unwrap();
    let lines = text.lines().filter(|line| line.starts_with("Pss_Anon:") || line.starts_with("Pss_Shmem:"));
    lines.map(|line| line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()).sum()
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn a_vm_that_is_suspended_gives_its_memory_back_and_goes_on_where_it_was() {
    let folder = Folder::new();
    for backing in [MemoryBacking::Anonymous, MemoryBacking::Memfd] {
        for memory in [LoadMemory::Copy, LoadMemory::Map] {
            let mut vm = Counts::boot_with(backing, 8 << 20);
            assert_eq!([vm.next(), vm.next()], ['a', 'b']);
            for (round, answers) in [['c', 'd'], ['e', 'f'], ['g', 'h']].into_iter().enumerate() {
                let before = own_kib();
                vm.vm.suspend(folder.path("vm"), memory).unwrap();
                assert_eq!(vm.vm.status(), Status::Paused);
                // Later, what was read lies in a file in memory, of which only what the guest has used since counts here.
                if round == 0 {
                    assert!(own_kib() + (7 << 10) < before, "{backing:?} {memory:?}: {} of {before} KiB", own_kib());
                }
                let refused = [vm.vm.snapshot().map(drop), vm.vm.suspend(folder.path("again"), memory)];
                for error in refused.map(Result::unwrap_err) {
                    assert!(error.to_string().ends_with("that is suspended; resume it first"), "{error}");
                }
                if memory == LoadMemory::Map {
                    // Whoever needs the name has it.
                    fs::remove_file(folder.path("vm")).unwrap();
                }
                vm.vm.resume().unwrap();
                assert_eq!([vm.next(), vm.next()], answers, "{backing:?} {memory:?}");
            }
            assert_eq!(Counts::fork(&vm.vm.snapshot().unwrap()).next(), 'i');
        }
    }
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn a_suspended_vm_whose_file_was_damaged_stays_as_it_is_and_one_that_cannot_be_saved_goes_on() {
    let folder = Folder::new();
    let mut vm = Counts::boot();
    assert_eq!(vm.next(), 'a');
    let error = vm.vm.suspend(folder.path("none").join("vm"), LoadMemory::Copy).unwrap_err();
    assert_eq!((error.kind(), vm.vm.status()), (ErrorKind::Snapshot, Status::Running));
    assert_eq!(vm.next(), 'b');
    vm.vm.suspend(folder.path("vm"), LoadMemory::Copy).unwrap();
    let file = fs::File::options().read(true).write(true).open(folder.path("vm")).unwrap();
    let (mut was, last) = ([0], file.metadata().unwrap().len() - 1);
    file.read_exact_at(&mut was, last).unwrap();
    file.write_all_at(&[!was[0]], last).unwrap();
    let error = vm.vm.resume().unwrap_err();
    assert!(error.to_string().contains("the checksum of the RAM at"), "{error}");
    assert_eq!(vm.vm.status(), Status::Paused);
    file.write_all_at(&was, last).unwrap();
    vm.vm.resume().unwrap();
    assert_eq!(vm.next(), 'c');
    vm.vm.suspend(folder.path("vm"), LoadMemory::Copy).unwrap();
    vm.vm.stop().unwrap();
    assert_eq!(vm.vm.resume().unwrap_err().kind(), ErrorKind::InvalidState);
    assert_eq!(Counts::fork(&Snapshot::load(folder.path("vm")).unwrap()).next(), 'd');
}

/// The descriptor of a file without a name in this folder that this process has open.
fn nameless_fd(folder: &Path) -> Option<PathBuf> {
    let fds = fs::read_dir("/proc/self/fd").unwrap().filter_map(|fd| fd.ok()?.path().into());
    let is_it = |fd: &PathBuf| {
        fs::read_link(fd).is_ok_and(|to| to.starts_with(folder) && to.to_string_lossy().ends_with("(deleted)"))
    };
    fds.into_iter().find(is_it)
}

/// All that such a file has.
fn nameless_in(folder: &Path) -> Option<Vec<u8>> {
    nameless_fd(folder).map(|fd| fs::read(fd).unwrap())
}

fn pages(file: &[u8]) -> BTreeSet<&[u8]> {
    file.chunks(4096).filter(|page| page.iter().any(|byte| *byte != 0)).collect()
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn an_encrypted_vm_that_sleeps_leaves_nothing_that_can_be_read_and_goes_on_where_it_was() {
    let folder = Folder::new();
    for backing in [MemoryBacking::Anonymous, MemoryBacking::Memfd] {
        let mut vm = Counts::boot_with(backing, 8 << 20);
        assert_eq!(vm.next(), 'a');
        let mut seen = BTreeSet::new();
        for answer in ['b', 'c'] {
            let before = own_kib();
            vm.vm.suspend_encrypted(folder.path("")).unwrap();
            if answer == 'b' {
                assert!(own_kib() + (7 << 10) < before, "{backing:?}: {} of {before} KiB", own_kib());
            }
            assert_eq!(fs::read_dir(folder.path("")).unwrap().count(), 0);
            let file = nameless_in(&folder.path("")).unwrap();
            let new: Vec<_> = pages(&file).into_iter().map(<[u8]>::to_vec).collect();
            assert_eq!(new.len() * 4096, file.len());
            // No page is as another one, those of zeroes neither, nor as with another key.
            assert!(new.into_iter().all(|page| seen.insert(page)));
            vm.vm.resume().unwrap();
            assert_eq!((vm.next(), nameless_in(&folder.path(""))), (answer, None));
        }
        vm.vm.suspend_encrypted(folder.path("")).unwrap();
        let flip = || {
            let file = fs::File::options().read(true).write(true).open(nameless_fd(&folder.path("")).unwrap()).unwrap();
            let mut byte = [0];
            file.read_exact_at(&mut byte, 0).unwrap();
            file.write_all_at(&[!byte[0]], 0).unwrap();
        };
        flip();
        let error = vm.vm.resume().unwrap_err();
        assert!(error.to_string().contains("the checksum of the RAM at"), "{error}");
        flip();
        vm.vm.resume().unwrap();
        vm.vm.snapshot().unwrap().save(folder.path("plain")).unwrap();
        let plain = fs::read(folder.path("plain")).unwrap();
        fs::remove_file(folder.path("plain")).unwrap();
        assert!(pages(&plain).len() > 8 && pages(&plain).iter().all(|page| !seen.contains(*page)));
        let error = vm.vm.suspend_encrypted(folder.path("none")).unwrap_err();
        assert_eq!((error.kind(), vm.vm.status(), vm.next()), (ErrorKind::Snapshot, Status::Running, 'd'));
        vm.vm.suspend_encrypted(folder.path("")).unwrap();
        drop(vm);
        assert_eq!(nameless_in(&folder.path("")), None);
    }
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn a_vm_that_is_resumed_while_it_is_suspended_goes_on_and_leaves_nothing() {
    let folder = Folder::new();
    let mut vm = Counts::boot_with(MemoryBacking::Memfd, 8 << 20);
    let suspend = |vm: &Vm, is_encrypted| match is_encrypted {
        true => vm.suspend_encrypted(folder.path("")),
        false => vm.suspend(folder.path("vm"), LoadMemory::Copy),
    };
    for (is_encrypted, answers) in [(true, ['a', 'b']), (false, ['c', 'd'])] {
        let is_over = AtomicBool::new(false);
        let error = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Ordering::SeqCst) {
                    vm.vm.resume().unwrap();
                }
            });
            let broken_off = (0..1000).find_map(|_| suspend(&vm.vm, is_encrypted).err());
            is_over.store(true, Ordering::SeqCst);
            broken_off.expect("one of a thousand is broken off")
        });
        assert_eq!(error.kind(), ErrorKind::InvalidState);
        assert!(error.to_string().contains("was resumed before it was suspended"), "{error}");
        assert_eq!((vm.vm.status(), vm.next(), nameless_in(&folder.path(""))), (Status::Running, answers[0], None));
        suspend(&vm.vm, is_encrypted).unwrap();
        vm.vm.resume().unwrap();
        assert_eq!(vm.next(), answers[1]);
    }
}

/// The launcher with the guest that counts, and both ends of its console.
struct Launched(std::process::Child);

impl Launched {
    fn start(arguments: &[&str]) -> Self {
        let mut launcher = support::launcher();
        launcher.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Self(launcher.spawn().unwrap())
    }

    /// Types a byte; returns the answer.
    fn next(&mut self) -> char {
        self.0.stdin.as_mut().unwrap().write_all(b"x").unwrap();
        let mut answer = [0];
        self.0.stdout.as_mut().unwrap().read_exact(&mut answer).unwrap();
        char::from(answer[0])
    }

    /// Asks for a snapshot; returns what the launcher says of it.
    fn save(&mut self) -> String {
        let id = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(id, rustix::process::Signal::USR1).unwrap();
        let mut lines = BufReader::new(self.0.stderr.as_mut().unwrap()).lines();
        lines.find_map(|line| line.ok().filter(|line| line.contains("saved"))).expect("it says what became of it")
    }
}

impl Drop for Launched {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn the_launcher_saves_at_a_signal_goes_on_and_another_one_wakes_what_was_saved() {
    let (folder, kernel) = (Folder::new(), support::Kernel::new(&support::counts::counter()));
    let (kernel, saves) = (kernel.path.to_str().unwrap(), folder.path("saves"));
    let saves = saves.to_str().unwrap();
    let boot = ["--kernel", kernel, "--memory", "16", "--seccomp", "kill", "--snapshot-to", saves];
    let mut first = Launched::start(&boot);
    assert_eq!(first.next(), 'a');
    for (asked, answer) in [("first", 'b'), ("second", 'c')] {
        let said = first.save();
        assert!(said.contains("vm.snapshot in "), "{asked}: {said}");
        assert_eq!(first.next(), answer);
    }
    drop(first);
    assert_eq!(fs::read_dir(saves).unwrap().count(), 1);
    for more in [&[][..], &["--snapshot-to", saves]] {
        let mut woken = Launched::start(&[&["--restore", saves], more].concat());
        assert_eq!([woken.next(), woken.next()], ['c', 'd'], "{more:?}");
        if !more.is_empty() {
            assert!(woken.save().contains("vm.snapshot in "));
        }
    }
    assert_eq!(Launched::start(&["--restore", saves]).next(), 'e');
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn the_launcher_refuses_to_wake_what_is_not_there_or_otherwise_than_it_was() {
    let folder = Folder::new();
    let refused = |arguments: &[&str]| {
        let output = support::launcher().args(arguments).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let missing = folder.path("none");
    let (status, said) = refused(&["--restore", missing.to_str().unwrap()]);
    assert!(status == Some(1) && said.contains("none/vm.snapshot: it cannot be opened: No such file"), "{said}");
    for option in ["--kernel", "--config", "--vcpus", "--memory", "--balloon"] {
        let (status, said) = refused(&["--restore", "x", option, "1"]);
        assert!(status == Some(2) && said.contains("cannot be used with"), "{option}: {said}");
    }
    let source = Counts::boot();
    source.vm.snapshot().unwrap().save(folder.path("vm.snapshot")).unwrap();
    fs::write(folder.path("disk"), [0; 4096]).unwrap();
    let disk = folder.path("disk");
    let (status, said) = refused(&["--restore", folder.path("").to_str().unwrap(), "--disk", disk.to_str().unwrap()]);
    assert!(status == Some(2) && said.contains("allowed are those of its source: none"), "{said}");
}

/// Writes `tests/golden/snapshot-1` if it is not there. It is never written again: this version must read what an earlier one wrote.
#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn the_golden_file_goes_on_where_the_cpu_allows() {
    let golden = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/snapshot-1");
    let folder = Folder::new();
    fs::write(folder.path("disk"), [0; 4096]).unwrap();
    let console = || vmcell::Console::callback(|_| {});
    if !golden.exists() {
        let kernel = support::Kernel::new(&support::counts::counter());
        // The disk's name stands in the file.
        std::env::set_current_dir(folder.path("")).unwrap();
        let builder = support::tiny(&kernel).vcpus(2).name("golden");
        let builder = builder.rng(vmcell::RngConfig::new()).balloon(vmcell::BalloonConfig::new());
        let builder = builder.vsock(vmcell::VsockConfig::new(3)).disk(vmcell::Disk::open("disk").unwrap());
        let vm = builder.console(console()).build().unwrap();
        vm.start().unwrap();
        vm.snapshot().unwrap().save(&golden).unwrap();
    }
    let snapshot = Snapshot::load(&golden).unwrap();
    let disk = vmcell::Disk::open(folder.path("disk")).unwrap();
    match Vm::builder().fork_of(&snapshot).disk(disk).console(console()).build() {
        Ok(vm) => vm.start().unwrap(),
        // Of another host: the file was read all the same.
        Err(error) => assert!(
            ["another CPU", "time-stamp counter", "model-specific"].iter().any(|what| error.chain().contains(what)),
            "{}",
            error.chain()
        ),
    }
}
