//! Snapshots in files: natively, with a guest that counts what is typed.

mod support;

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use support::counts::Counts;
use tempfile::TempDir;
use vmcell::{ErrorKind, LoadMemory, MemoryBacking, SaveOptions, Snapshot, Vm};

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
    assert!(refused(SaveOptions::new().bytes_per_second(0)).contains("allowed are 1 or more"));
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
