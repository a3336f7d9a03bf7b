//! How much memory is locked while a volume is opened: users may lock little, and many volumes may be opened at once.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};

use vmcell::volume::{Key, Volume};

/// Bytes of the process that are locked.
fn locked() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmLck:")).expect("Linux tells it");
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

#[test]
fn opening_and_adding_keys_lock_a_few_pages() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("volume");
    let keys: Vec<Key> = (0..2).map(|byte| Key::random(&[byte; 32]).unwrap()).collect();
    Volume::create(&path, 1 << 20, &keys[0]).unwrap();
    let (before, is_over) = (locked(), AtomicBool::new(false));
    let most = std::thread::scope(|scope| {
        let looker = scope.spawn(|| {
            let mut most = 0;
            while !is_over.load(Ordering::SeqCst) {
                most = most.max(locked());
            }
            most
        });
        for _ in 0..10 {
            let slot = Volume::keys(&path).unwrap().add(&keys[0], &keys[1]).unwrap();
            drop(Volume::open(&path, &keys[1]).unwrap());
            Volume::keys(&path).unwrap().remove(slot).unwrap();
        }
        is_over.store(true, Ordering::SeqCst);
        looker.join().unwrap()
    });
    assert!(most > before, "it saw nothing");
    assert!(most - before <= 64 << 10, "{} bytes were locked", most - before);
    assert_eq!(locked(), before);
}
