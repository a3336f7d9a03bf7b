//! Which parts of its RAM a guest uses, and reading those ahead.

mod support;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use support::counts::Counts;
use vmcell::{ErrorKind, LoadMemory, MemoryBacking, Snapshot, WorkingSet};

const INITRD: u64 = 4 << 20;

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// How many bytes of a file are in the host's cache.
fn cached(path: &Path) -> u64 {
    let said = run("fincore", &["--bytes", "--noheadings", "--output", "RES", path.to_str().unwrap()]);
    said.trim().parse().unwrap()
}

/// Has the host forget what it has of a file in its cache; says no if the file lies nowhere else.
fn is_forgotten(path: &Path) -> bool {
    let of = format!("of={}", path.display());
    run("dd", &["if=/dev/null", &of, "oflag=nocache", "conv=notrunc,fdatasync", "count=0", "status=none"]);
    cached(path) < INITRD
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn what_a_guest_used_is_read_ahead_the_next_time_and_the_rest_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let (path, parts) = (folder.path().join("vm"), folder.path().join("vm.parts"));
    let mut source = Counts::boot_with(MemoryBacking::Memfd, INITRD as usize);
    assert_eq!(source.next(), 'a');
    source.vm.snapshot().unwrap().save(&path).unwrap();
    drop(source);
    {
        assert!(is_forgotten(&path), "the file is on no disk");
        let mut fork = Counts::fork(&Snapshot::load_with(&path, LoadMemory::Map).unwrap());
        assert_eq!(fork.next(), 'b');
        fork.vm.working_set().unwrap().save(&parts).unwrap();
    }
    let used = WorkingSet::load(&parts).unwrap();
    let holds = |address| used.ranges().any(|(start, len)| (start.0..start.0 + len).contains(&address));
    assert!(holds(0x20_0000) && (4096..INITRD).contains(&used.bytes()), "{used:?}");
    let snapshot = Snapshot::load_with(&path, LoadMemory::Map).unwrap();
    assert!(is_forgotten(&path));
    let before = cached(&path);
    snapshot.read_ahead(&used).unwrap();
    let begun = Instant::now();
    while cached(&path) <= before {
        assert!(begun.elapsed() < Duration::from_secs(10), "nothing is read");
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(cached(&path) < INITRD, "more is read than what was used");
    assert_eq!(Counts::fork(&snapshot).next(), 'b');
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn a_working_set_that_is_damaged_or_of_a_larger_guest_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("parts");
    let mut source = Counts::boot();
    assert_eq!(source.next(), 'a');
    let snapshot = source.vm.snapshot().unwrap();
    for text in [
        "",
        "{}",
        "[1]",
        r#"{"version":1,"ranges":[[-1,4096]]}"#,
        r#"{"version":1,"ranges":[[0]]}"#,
        r#"{"version":1,"ranges":[],"more":1}"#,
        r#"{"version":2,"ranges":[]}"#,
    ] {
        std::fs::write(&path, text).unwrap();
        let error = WorkingSet::load(&path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Snapshot, "{text}");
    }
    for (start, len) in [(16 << 20, 1), (0, (16 << 20) + 1), (u64::MAX, u64::MAX), (4096, u64::MAX)] {
        std::fs::write(&path, format!(r#"{{"version":1,"ranges":[[{start},{len}]]}}"#)).unwrap();
        let error = snapshot.read_ahead(&WorkingSet::load(&path).unwrap()).unwrap_err();
        assert!(error.to_string().contains("which is not within the guest's RAM"), "{error}");
    }
    std::fs::write(&path, r#"{"version":1,"ranges":[[4096,0],[0,16777216]]}"#).unwrap();
    snapshot.read_ahead(&WorkingSet::load(&path).unwrap()).unwrap();
    assert!(WorkingSet::load(folder.path()).is_err());
    assert!(WorkingSet::load(folder.path().join("none")).is_err());
    assert!(source.vm.working_set().unwrap().save(folder.path()).is_err());
}
