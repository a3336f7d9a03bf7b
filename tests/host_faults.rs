//! A host that refuses or is slow, and devices on it that go on: storage that does not answer beside a network card, a limit on the size of
//! files, and storage that fails for a while.
//!
//! A limit is the whole process's, so each test has the process to itself while it lasts.

#[path = "../examples/loopback_nic/cable.rs"]
#[allow(dead_code, reason = "its counter is for others")]
mod cable;
#[path = "../src/testing/dead_storage_test.rs"]
mod dead_storage;
#[path = "support/disk_rig.rs"]
mod disk_rig;

use std::collections::VecDeque;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cable::cable;
use dead_storage::DeadStorage;
use disk_rig::{DATA, DiskRig, STATUS};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use vmcell::block::{DiskBackend, DiskInfo, Done, FileBackend, Operation, Tag};
use vmcell::event::{Event, Io, Wants};
use vmcell::testing::{Buffer, NicDriver, memory_disk};
use vmcell::{Disk, Engine, GuestAddress, IoThread, Nic};

const IN: u32 = 0;
const OUT: u32 = 1;
const FLUSH: u32 = 4;
const OK: u8 = 0;
const IO_ERROR: u8 = 1;

const DISK: u64 = 1 << 20;

fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

impl DiskRig {
    /// One request; its status.
    fn run(&mut self, kind: u32, sector: u64, data: &[Buffer]) -> u8 {
        self.offer(kind, sector, data);
        self.driver.wait_used(&mut self.queue);
        let mut status = [0xff];
        self.memory.read(GuestAddress(STATUS), &mut status).unwrap();
        status[0]
    }

    fn write(&mut self, sector: u64, byte: u8, len: u32) -> u8 {
        self.memory.write(GuestAddress(DATA), &vec![byte; len as usize]).unwrap();
        self.run(OUT, sector, &[Buffer::readable(DATA, len)])
    }

    fn flush(&mut self) -> u8 {
        self.run(FLUSH, 0, &[])
    }

    /// What a read gives, if it succeeds.
    fn read(&mut self, sector: u64, len: u32) -> Option<Vec<u8>> {
        let status = self.run(IN, sector, &[Buffer::writable(DATA, len)]);
        let mut bytes = vec![0; len as usize];
        self.memory.read(GuestAddress(DATA), &mut bytes).unwrap();
        (status == OK).then_some(bytes)
    }
}

/// The times of some round trips between a card on this thread and one elsewhere, the shortest first.
fn round_trips(io_thread: &IoThread, count: usize) -> Vec<Duration> {
    const PATIENCE: Duration = Duration::from_secs(30);
    let (here, there) = cable(Duration::ZERO, 64);
    let mut guest = NicDriver::new(Nic::backend(here), io_thread).unwrap();
    let mut peer = NicDriver::new(Nic::backend(there), &IoThread::new("peer").unwrap()).unwrap();
    guest.fill();
    peer.fill();
    let packet = [&[0; 12][..], &[2; 60]].concat();
    let trip = |_| {
        let begun = Instant::now();
        assert!(guest.send(&packet));
        peer.receive(PATIENCE).expect("a frame goes out");
        assert!(peer.send(&packet));
        guest.receive(PATIENCE).expect("a frame comes back");
        begun.elapsed()
    };
    let mut trips: Vec<_> = (0..count).map(trip).collect();
    trips.sort();
    trips
}

#[test]
#[allow(clippy::print_stderr, reason = "says why it was skipped")]
fn a_disk_whose_storage_does_not_answer_does_not_hold_up_the_network_beside_it() {
    let _alone = alone();
    for (kind, engine, direct) in
        [(FLUSH, Engine::Auto, false), (IN, Engine::Auto, false), (IN, Engine::Auto, true), (IN, Engine::Sync, false)]
    {
        let Some(storage) = DeadStorage::mount() else {
            return eprintln!(
                "skipped: no file system of our own can be mounted here (it takes root, mount and /dev/fuse)"
            );
        };
        let io_thread = IoThread::new("shared").unwrap();
        let mut slow = DiskRig::new(Disk::open(storage.path()).unwrap().engine(engine).direct(direct), &io_thread);
        let data = [Buffer::writable(DATA, 4096)];
        (0..20).for_each(|_| slow.offer(kind, 0, if kind == IN { &data } else { &[] }));
        let trips = round_trips(&io_thread, 200);
        let (half, most) = (trips[100], trips[197]);
        // It would be for ever otherwise. What a crowded host takes for a round trip is milliseconds.
        assert!(most < Duration::from_secs(1), "{kind} {engine:?} {direct}: {half:?} by half, {most:?} by 99 of 100");
        assert_eq!(slow.queue.used_index(), 0, "the storage has answered, so this shows nothing");
        drop(storage);
        (0..20).for_each(|_| _ = slow.driver.wait_used(&mut slow.queue));
    }
}

/// A limit on the size of files, as a service manager may set it: the kernel cuts a write that crosses it, and refuses what lies behind.
struct FileSize(Rlimit);

impl FileSize {
    fn limit(bytes: u64) -> Self {
        let before = getrlimit(Resource::Fsize);
        setrlimit(Resource::Fsize, Rlimit { current: Some(bytes), maximum: before.maximum }).unwrap();
        Self(before)
    }
}

impl Drop for FileSize {
    fn drop(&mut self) {
        let _ = setrlimit(Resource::Fsize, Rlimit { current: self.0.current, maximum: self.0.maximum });
    }
}

#[test]
fn writes_past_a_limit_on_the_size_of_files_fail_and_what_was_flushed_stays() {
    const LIMIT: u64 = 256 << 10;
    let _alone = alone();
    for engine in [Engine::Auto, Engine::Sync] {
        let file = tempfile::tempfile().unwrap();
        file.set_len(DISK).unwrap();
        let io_thread = IoThread::new("limited").unwrap();
        let mut disk = DiskRig::new(Disk::from_file(file.try_clone().unwrap()).unwrap().engine(engine), &io_thread);
        assert_eq!((disk.write(0, 1, 4096), disk.write(LIMIT / 512 - 8, 1, 4096), disk.flush()), (OK, OK, OK));
        let limit = FileSize::limit(LIMIT);
        // Its default is to end the process; threads of ours let nothing come through.
        assert_eq!(disk.write(LIMIT / 512, 2, 4096), IO_ERROR, "{engine:?}: behind the limit");
        assert_eq!(disk.write(LIMIT / 512 - 4, 2, 4096), IO_ERROR, "{engine:?}: across the limit");
        assert_eq!((disk.write(16, 3, 4096), disk.flush()), (OK, OK), "{engine:?}: before the limit");
        assert_eq!(disk.read(0, 4096).unwrap(), [1; 4096], "{engine:?}");
        assert_eq!(disk.read(LIMIT / 512, 4096).unwrap(), [0; 4096], "{engine:?}: a write that failed was done");
        drop(limit);
        assert_eq!((disk.write(LIMIT / 512, 4, 4096), disk.flush()), (OK, OK), "{engine:?}: when it is lifted");
        let mut bytes = [0; 4096];
        for (at, byte) in [(0, 1), (8192, 3), (LIMIT, 4)] {
            file.read_exact_at(&mut bytes, at).unwrap();
            assert_eq!(bytes, [byte; 4096], "{engine:?}: at {at}");
        }
    }
}

/// Fails what it is told to fail, and leaves the rest to a file.
struct Failing {
    below: FileBackend,
    error: Arc<AtomicI32>,
    failed: VecDeque<Done>,
}

impl DiskBackend for Failing {
    fn info(&self) -> DiskInfo {
        self.below.info()
    }

    fn attach(&mut self, io: &mut Io) -> vmcell::Result<()> {
        self.below.attach(io)
    }

    fn submit(&mut self, io: &mut Io, tag: Tag, operation: Operation) -> Result<(), Operation> {
        match self.error.load(Ordering::SeqCst) {
            0 => self.below.submit(io, tag, operation),
            error => {
                self.failed.push_back(Done::new(tag, operation, Err(std::io::Error::from_raw_os_error(error))));
                Ok(())
            }
        }
    }

    fn commit(&mut self, io: &mut Io) {
        self.below.commit(io);
    }

    fn completed(&mut self, io: &mut Io) -> Option<Done> {
        self.failed.pop_front().or_else(|| self.below.completed(io))
    }

    fn cancel(&mut self, io: &mut Io) {
        self.below.cancel(io);
    }

    fn wants(&self, wants: &mut Wants) {
        self.below.wants(wants);
    }

    fn woken(&mut self, io: &mut Io, event: &Event) {
        self.below.woken(io, event);
    }
}

#[test]
fn storage_that_fails_for_a_while_loses_nothing_that_was_flushed() {
    let _alone = alone();
    let file: File = memory_disk(DISK);
    let error = Arc::new(AtomicI32::new(0));
    let below = FileBackend::new(file.try_clone().unwrap()).unwrap();
    let failing = Failing { below, error: Arc::clone(&error), failed: VecDeque::new() };
    let mut disk = DiskRig::new(Disk::backend(failing), &IoThread::new("failing").unwrap());
    for (round, number) in (1u8..).zip([libc::EIO, libc::ENOSPC, libc::ENOMEM, libc::EDQUOT, libc::EROFS]) {
        let sector = u64::from(round) * 8;
        assert_eq!((disk.write(sector, round, 4096), disk.flush()), (OK, OK));
        error.store(number, Ordering::SeqCst);
        assert_eq!((disk.write(sector, 0xee, 4096), disk.flush()), (IO_ERROR, IO_ERROR), "{number}");
        assert_eq!(disk.read(sector, 4096), None, "{number}: a read that failed said that it did not");
        error.store(0, Ordering::SeqCst);
        assert_eq!(disk.read(sector, 4096).unwrap(), [round; 4096], "{number}");
    }
    assert_eq!(disk.driver.transport().failure(), None, "a request that fails is no failure of the device");
    let mut bytes = [0; 4096];
    for round in 1u8..=5 {
        file.read_exact_at(&mut bytes, u64::from(round) * 4096).unwrap();
        assert_eq!(bytes, [round; 4096]);
    }
}
