//! Disks of a process that may have only a few files open.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use vmcell::testing::{MmioDriver, memory_disk, patterned_memory};
use vmcell::virtio::MmioTransport;
use vmcell::{Disk, IoThread};

fn limit_files(files: u64) {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: Some(files), maximum }).unwrap();
}

/// The engine of a disk, and why it is not another one; `None` if so few files do not even do for the disk.
fn engine(io_thread: &IoThread, files: u64) -> Option<(String, String)> {
    let disk = Disk::from_file(memory_disk(1 << 20)).unwrap();
    let (handle, device) = (disk.handle(), disk.into_device().unwrap());
    let (memory, before) = (patterned_memory(1 << 20), getrlimit(Resource::Nofile).current.unwrap());
    limit_files(files);
    let transport = MmioTransport::new(device, memory, io_thread);
    limit_files(before);
    drop(MmioDriver::new(transport.ok()?));
    let status = handle.status();
    Some((status.engine, status.fallback.unwrap_or_default()))
}

#[test]
#[allow(clippy::print_stderr, reason = "says why it was skipped")]
fn a_process_with_few_descriptors_has_a_ring_and_one_with_none_left_is_told() {
    let io_thread = || IoThread::new("few").unwrap();
    let (usual, why) = engine(&io_thread(), 1024).unwrap();
    if usual != "uring" {
        eprintln!("skipped: {why}");
        return;
    }
    assert_eq!(engine(&io_thread(), 64).unwrap(), ("uring".to_owned(), String::new()));
    let least = (4..64).find_map(|files| engine(&io_thread(), files));
    let (engine, why) = least.unwrap();
    assert_eq!(engine, "sync");
    assert!(why.contains("RLIMIT_NOFILE"), "{why}");
}
