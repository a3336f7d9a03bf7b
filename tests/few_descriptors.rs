//! Disks and vsocks of a process that may have only a few files open.

use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use vmcell::testing::rooms::vsock;
use vmcell::testing::{DriverQueue, MmioDriver, memory_disk, patterned_memory};
use vmcell::virtio::MmioTransport;
use vmcell::{Disk, GuestAddress, IoThread, VsockConfig};

/// The limit is the whole process's, and so is each descriptor.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

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
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
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

/// A look for clients takes a descriptor for a moment, even if there are none.
fn wait_until_it_rests(thread: &IoThread) {
    let mut turns = None;
    while turns != Some(thread.metrics().turns) {
        turns = Some(thread.metrics().turns);
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_client_of_a_vsock_is_accepted_once_the_process_may_open_files_again_and_costs_no_cpu_until_then() {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("guest.vsock");
    let (device, _vsock) = vsock(&VsockConfig::new(3).unix_path(&path)).unwrap();
    let (memory, thread) = (patterned_memory(1 << 20), IoThread::new("vsock").unwrap());
    let driver = MmioDriver::new(MmioTransport::new(device, memory.clone(), &thread).unwrap());
    let queues = [0x1000, 0x4000, 0x7000].map(|base| DriverQueue::new(&memory, GuestAddress(base), 16));
    driver.bring_up(driver.offered(), &queues.each_ref());
    let asked = || driver.transport().own_counters()["connections_by_host"];
    let before = getrlimit(Resource::Nofile).current.unwrap();
    wait_until_it_rests(&thread);
    // The client has the last one.
    let next = memory_disk(512).as_raw_fd().unsigned_abs();
    limit_files(u64::from(next) + 1);
    let mut client = UnixStream::connect(&path).unwrap();
    client.write_all(b"CONNECT 52\n").unwrap();
    let turns = thread.metrics().turns;
    std::thread::sleep(Duration::from_millis(350));
    let (refused, turns) = (asked(), thread.metrics().turns - turns);
    limit_files(before);
    assert_eq!(refused, 0);
    assert!((2..20).contains(&turns), "{turns} turns");
    driver.wait_until("the client is accepted", || asked() == 1);
}
