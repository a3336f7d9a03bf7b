//! Files of snapshots that earlier versions wrote are read by this one.

use std::path::{Path, PathBuf};

use vmcell::{LoadMemory, Snapshot};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

#[test]
fn a_snapshot_of_each_version_of_the_layout_is_read() {
    for (file, devices) in [("snapshot-1", ["disk 0 (disk)", "rng", "balloon", "vsock"])] {
        for memory in [LoadMemory::Copy, LoadMemory::Map] {
            let snapshot =
                Snapshot::load_with(golden(file), memory).unwrap_or_else(|e| panic!("{file}: {}", e.chain()));
            assert_eq!((snapshot.config().vcpus, snapshot.config().memory.mib), (2, 16), "{file}");
            assert_eq!(snapshot.config().name, "golden", "{file}");
            assert_eq!(snapshot.devices().collect::<Vec<_>>(), devices, "{file}");
        }
    }
}
