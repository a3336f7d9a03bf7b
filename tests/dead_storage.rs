//! Disks whose storage does not answer: their I/O thread ends all the same, and others on it go on.

#[path = "../src/testing/dead_storage_test.rs"]
mod dead_storage;
#[path = "support/disk_rig.rs"]
mod disk_rig;

use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use dead_storage::DeadStorage;
use disk_rig::{DATA, DiskRig};
use vmcell::block::{abandoned_threads, abandoned_transfers};
use vmcell::testing::{Buffer, memory_disk};
use vmcell::{Disk, IoThread};

const PATIENCE: Duration = Duration::from_secs(5);
const READ: u32 = 0;
const FLUSH: u32 = 4;

fn offer(disk: &mut DiskRig, kind: u32) {
    let data = Buffer::writable(DATA, 4096);
    disk.offer(kind, 0, if kind == FLUSH { &[] } else { std::slice::from_ref(&data) });
}

#[allow(clippy::print_stderr, reason = "says why it was skipped")]
fn mount() -> Option<DeadStorage> {
    let storage = DeadStorage::mount();
    if storage.is_none() {
        eprintln!("skipped: no file system of our own can be mounted here (it takes root, mount and /dev/fuse)");
    }
    storage
}

/// Does it on a thread of its own; says whether it is done in time.
fn in_time(work: impl FnOnce() + Send + 'static) -> bool {
    let (done, is_done) = channel();
    let worker = std::thread::spawn(move || {
        work();
        let _ = done.send(());
    });
    is_done.recv_timeout(PATIENCE).is_ok() && worker.join().is_ok()
}

#[test]
fn an_io_thread_can_be_dropped_although_its_storage_does_not_answer() {
    for (kind, direct) in [(FLUSH, false), (READ, false), (READ, true)] {
        let Some(storage) = mount() else { return };
        let io_thread = IoThread::new("dead").unwrap();
        let mut dead = DiskRig::new(Disk::open(storage.path()).unwrap().direct(direct), &io_thread);
        (0..3).for_each(|_| offer(&mut dead, kind));
        std::thread::sleep(Duration::from_millis(50));
        let memory = dead.memory.clone();
        let dropped = in_time(move || drop((dead, io_thread)));
        let left_over = abandoned_transfers() + abandoned_threads();
        // What waits fails now.
        drop(storage);
        assert!(dropped, "kind {kind}, direct {direct}");
        assert!(left_over > 0, "kind {kind}, direct {direct}: what may still reach the guest's memory is known");
        let began = Instant::now();
        while abandoned_transfers() + abandoned_threads() > 0 {
            assert!(began.elapsed() < PATIENCE, "what was left over ends with the storage's answer");
            std::thread::sleep(Duration::from_millis(10));
        }
        drop(memory);
    }
}

#[test]
fn two_disks_whose_storage_does_not_answer_do_not_hold_up_a_third() {
    let (Some(first), Some(second)) = (mount(), mount()) else { return };
    let io_thread = IoThread::new("shared").unwrap();
    let mut dead = [&first, &second].map(|storage| DiskRig::new(Disk::open(storage.path()).unwrap(), &io_thread));
    for dead in &mut dead {
        (0..64).for_each(|_| offer(dead, FLUSH));
    }
    std::thread::sleep(Duration::from_millis(50));
    let mut good = DiskRig::new(Disk::from_file(memory_disk(1 << 20)).unwrap(), &io_thread);
    for kind in [FLUSH, READ, FLUSH] {
        offer(&mut good, kind);
    }
    let served = in_time(move || (0..3).for_each(|_| _ = good.driver.wait_used(&mut good.queue)));
    drop((first, second));
    assert!(served);
    for dead in &mut dead {
        (0..64).for_each(|_| _ = dead.driver.wait_used(&mut dead.queue));
    }
}

#[test]
fn a_disk_whose_storage_does_not_say_its_size_does_not_hold_up_another_one() {
    let Some(storage) = mount() else { return };
    let io_thread = IoThread::new("shared").unwrap();
    let disk = Disk::open(storage.path()).unwrap();
    let handle = disk.handle();
    let dead = DiskRig::new(disk, &io_thread);
    storage.fall_silent();
    handle.refresh();
    std::thread::sleep(Duration::from_millis(50));
    let mut good = DiskRig::new(Disk::from_file(memory_disk(1 << 20)).unwrap(), &io_thread);
    offer(&mut good, READ);
    let served = in_time(move || _ = good.driver.wait_used(&mut good.queue));
    drop((storage, dead));
    assert!(served);
}

#[test]
fn a_disk_whose_storage_does_not_answer_does_not_hold_up_another_one() {
    for (kind, direct) in [(FLUSH, false), (READ, false), (READ, true)] {
        let Some(storage) = mount() else { return };
        let io_thread = IoThread::new("shared").unwrap();
        let mut dead = DiskRig::new(Disk::open(storage.path()).unwrap().direct(direct), &io_thread);
        let mut good = DiskRig::new(Disk::from_file(memory_disk(1 << 20)).unwrap(), &io_thread);
        (0..64).for_each(|_| offer(&mut dead, kind));
        std::thread::sleep(Duration::from_millis(50));
        offer(&mut good, FLUSH);
        let flushed = in_time(move || _ = good.driver.wait_used(&mut good.queue));
        drop(storage);
        assert!(flushed, "kind {kind}, direct {direct}");
        (0..64).for_each(|_| _ = dead.driver.wait_used(&mut dead.queue));
    }
}
