//! Transfers by a ring, and what becomes of those whose owner goes.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::sync::mpsc::{Receiver, channel};

use vm_memory::GuestMemoryBackend as _;

use super::*;
use crate::memory::Buffer;
use crate::memory::{GuestAddress, GuestMemory, GuestRanges, HostBuffer, Lessor, RangeList};
use crate::sys::forbid;
use crate::testing::dead_storage::DeadStorage;
use crate::testing::{has_uring, patterned_memory};

/// A file that says when it is let go of.
struct Watched(File, std::sync::mpsc::Sender<()>);

impl AsFd for Watched {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let _ = self.1.send(());
    }
}

struct Rig {
    ring: FileRing,
    port: Option<Port>,
    told: Arc<AtomicUsize>,
    called: Arc<AtomicUsize>,
    let_go: Receiver<()>,
}

fn counter() -> (Arc<AtomicUsize>, impl Fn() + Send + Sync + 'static) {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    (count, move || _ = counted.fetch_add(1, Ordering::SeqCst))
}

fn rig(file: File) -> Rig {
    let (called, call) = counter();
    let (told, tell) = counter();
    let (sender, let_go) = channel();
    let mut ring = FileRing::new(call).unwrap();
    let port = Some(ring.open(&Arc::new(Watched(file, sender)), tell).unwrap());
    Rig { ring, port, told, called, let_go }
}

fn file() -> File {
    let file = tempfile::tempfile().unwrap();
    file.write_all_at(&[0xaa; 8192], 0).unwrap();
    file
}

/// A pipe that nothing comes out of, so that a read of it stays in flight.
fn pipe() -> (File, File) {
    let (reader, writer) = std::io::pipe().unwrap();
    (File::from(std::os::fd::OwnedFd::from(reader)), File::from(std::os::fd::OwnedFd::from(writer)))
}

fn host(len: usize) -> Buffer {
    Buffer::Host(HostBuffer::new(len))
}

fn read() -> Transfer {
    Transfer::Read { at: 0, into: host(512) }
}

impl Rig {
    fn begin(&mut self, tag: u64, transfer: Transfer) {
        self.ring.begin(self.port.as_ref().unwrap(), tag, transfer).unwrap();
    }

    fn wait(&mut self) -> Transferred {
        let begun = Instant::now();
        loop {
            self.ring.submit();
            self.ring.reap();
            if let Some(done) = self.ring.take(self.port.as_ref().unwrap()) {
                return done;
            }
            assert!(begun.elapsed() < Duration::from_secs(10));
        }
    }
}

#[test]
fn guest_memory_and_host_buffers_are_moved_and_given_back() {
    if !has_uring() {
        return;
    }
    let mut rig = rig(file());
    let memory = patterned_memory(1 << 16);
    let lessor = Lessor::new(memory.clone());
    let mut ranges = GuestRanges::new(RangeList::default(), lessor.lease());
    ranges.extend([(GuestAddress(0x1000), 512), (GuestAddress(0x3000), 512)]).unwrap();
    rig.begin(1, Transfer::Read { at: 0, into: Buffer::Guest(ranges) });
    let done = rig.wait();
    assert_eq!((done.tag, done.result.unwrap(), rig.told.load(Ordering::SeqCst)), (1, 1024, 1));
    let mut bytes = [0; 512];
    memory.read(GuestAddress(0x3000), &mut bytes).unwrap();
    assert!(bytes.iter().all(|byte| *byte == 0xaa));
    assert_eq!(lessor.count(), 1);
    drop(done.transfer);
    assert_eq!(lessor.count(), 0);
    for stable in [false, true] {
        rig.begin(2, Transfer::Write { at: 512, from: host(1024), stable });
        assert_eq!(rig.wait().result.unwrap(), 1024);
    }
    rig.begin(3, read());
    rig.wait().result.unwrap();
    rig.begin(4, Transfer::Read { at: 0, into: host(2048) });
    let Transfer::Read { into, .. } = rig.wait().transfer else { panic!("it was a read") };
    let mut bytes = [0; 2048];
    into.copy_out(0, &mut bytes).unwrap();
    assert!(bytes[512..1536].iter().all(|byte| *byte == 0) && bytes[1536..].iter().all(|byte| *byte == 0xaa));
}

#[test]
fn an_error_and_the_end_of_a_file_are_told() {
    if !has_uring() {
        return;
    }
    let mut rig = rig(file());
    rig.begin(1, Transfer::Read { at: 8000, into: host(512) });
    assert_eq!(rig.wait().result.unwrap(), 192);
    rig.begin(2, Transfer::Read { at: 1 << 63, into: host(512) });
    assert_eq!(rig.wait().result.unwrap_err().raw_os_error(), Some(libc::EINVAL));
}

#[test]
fn more_than_a_ring_holds_is_refused_and_taken_later() {
    if !has_uring() {
        return;
    }
    let mut rig = rig(file());
    for tag in 0..MOST_FLIGHTS as u64 {
        rig.begin(tag, Transfer::Read { at: 0, into: host(1) });
    }
    let port = rig.port.as_ref().unwrap();
    let refused = rig.ring.begin(port, 7, read()).unwrap_err();
    let tags: std::collections::HashSet<_> = (0..MOST_FLIGHTS).map(|_| rig.wait().tag).collect();
    assert_eq!(tags.len(), MOST_FLIGHTS);
    rig.begin(7, refused);
    rig.wait().result.unwrap();
}

#[test]
fn a_port_that_is_dropped_lets_its_file_go_once_nothing_is_in_flight() {
    if !has_uring() {
        return;
    }
    let (reader, writer) = pipe();
    let mut rig = rig(reader);
    let lessor = Lessor::new(patterned_memory(1 << 16));
    let mut ranges = GuestRanges::new(RangeList::default(), lessor.lease());
    ranges.extend([(GuestAddress(0x1000), 512)]).unwrap();
    rig.begin(1, Transfer::Read { at: 0, into: Buffer::Guest(ranges) });
    rig.ring.submit();
    drop(rig.port.take());
    assert_eq!(rig.called.load(Ordering::SeqCst), 1);
    assert!(rig.ring.has_news());
    rig.ring.reap();
    assert!(rig.let_go.try_recv().is_err(), "it is still read");
    assert_eq!(lessor.count(), 1, "the kernel may still write there");
    drop(writer);
    let begun = Instant::now();
    while rig.let_go.try_recv().is_err() {
        assert!(begun.elapsed() < Duration::from_secs(10));
        rig.ring.submit();
        rig.ring.reap();
    }
    assert_eq!((lessor.count(), rig.told.load(Ordering::SeqCst)), (0, 0));
}

#[test]
fn another_thread_that_drops_a_port_waits_for_its_file_to_be_let_go() {
    if !has_uring() {
        return;
    }
    let mut rig = rig(file());
    rig.begin(1, read());
    let port = rig.port.take();
    let dropper = thread::spawn(move || {
        let begun = Instant::now();
        drop(port);
        begun.elapsed()
    });
    while rig.let_go.try_recv().is_err() {
        rig.ring.submit();
        rig.ring.reap();
    }
    assert!(dropper.join().unwrap() < PATIENCE);
}

#[test]
fn what_is_in_flight_when_a_ring_ends_is_never_freed() {
    if !has_uring() {
        return;
    }
    let (reader, _writer) = pipe();
    let mut rig = rig(reader);
    let lessor = Lessor::new(patterned_memory(1 << 16));
    let mut ranges = GuestRanges::new(RangeList::default(), lessor.lease());
    ranges.extend([(GuestAddress(0x1000), 512)]).unwrap();
    rig.begin(1, Transfer::Read { at: 0, into: Buffer::Guest(ranges) });
    let leaked = leaked_transfers();
    drop(rig.ring);
    assert_eq!(leaked_transfers(), leaked + 1);
    assert_eq!(lessor.count(), 1);
    assert!(rig.let_go.try_recv().is_err());
}

#[test]
fn a_port_of_another_ring_is_refused() {
    if !has_uring() {
        return;
    }
    let (mut one, other) = (rig(file()), rig(file()));
    assert!(one.ring.begin(other.port.as_ref().unwrap(), 1, read()).is_err());
    assert!(one.ring.take(other.port.as_ref().unwrap()).is_none());
}

#[test]
fn a_completion_ends_a_wait_for_other_descriptors() {
    if !has_uring() {
        return;
    }
    let mut rig = rig(file());
    let mut epoll = crate::sys::Epoll::new().unwrap();
    epoll.add(rig.ring.as_raw_fd(), crate::sys::Watch::READABLE, 5).unwrap();
    rig.begin(1, read());
    rig.ring.submit();
    let (mut ready, begun) = (Vec::new(), Instant::now());
    while !rig.ring.has_news() {
        epoll.wait(Some(Duration::from_secs(10)), &mut ready).unwrap();
    }
    assert!(begun.elapsed() < Duration::from_secs(5));
    rig.ring.reap();
    ready.clear();
    epoll.wait(Some(Duration::ZERO), &mut ready).unwrap();
    assert!(ready.is_empty(), "there is nothing more");
}

/// Does it on a thread of its own, which may forbid itself system calls.
fn apart(work: impl FnOnce() + Send + 'static) {
    thread::spawn(work).join().unwrap();
}

#[test]
fn a_ring_that_is_forbidden_later_gives_back_what_the_kernel_never_took_and_keeps_what_it_took() {
    if !has_uring() {
        return;
    }
    for errno in [libc::EPERM, libc::ENOSYS] {
        apart(move || {
            let (reader, writer) = pipe();
            let mut rig = rig(reader);
            rig.begin(1, read());
            rig.ring.submit();
            forbid(libc::SYS_io_uring_enter, errno);
            (2..5).for_each(|tag| rig.begin(tag, read()));
            let ended: Vec<_> = (2..5).map(|_| rig.wait()).collect();
            for (done, tag) in ended.iter().zip(2..) {
                let error = done.result.as_ref().unwrap_err().raw_os_error();
                assert_eq!((done.tag, error), (tag, Some(libc::ECANCELED)));
            }
            assert!(rig.ring.given_up().unwrap().contains("os error"), "{:?}", rig.ring.given_up());
            assert_eq!((rig.ring.in_flight(), rig.ring.next_moment()), (1, None), "nobody asks again");
            let port = rig.port.as_ref().unwrap();
            assert!(rig.ring.begin(port, 6, read()).is_err());
            assert!(rig.ring.open(&Arc::new(file()), || ()).is_err());
            (&writer).write_all(&[7; 512]).unwrap();
            let done = rig.wait();
            assert_eq!((done.tag, done.result.unwrap()), (1, 512));
        });
    }
}

#[test]
fn a_ring_that_the_kernel_has_no_memory_for_is_asked_again_and_ends_without_what_it_never_took() {
    if !has_uring() {
        return;
    }
    apart(|| {
        let mut rig = rig(file());
        forbid(libc::SYS_io_uring_enter, libc::EAGAIN);
        rig.begin(1, read());
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(100) {
            rig.ring.submit();
            rig.ring.reap();
            assert!(rig.ring.next_moment().is_some());
        }
        assert_eq!((rig.ring.given_up(), rig.ring.in_flight()), (None, 1));
        drop(rig.ring);
        assert!(rig.let_go.try_recv().is_ok(), "nothing was with the kernel");
    });
}

#[test]
fn what_no_kernel_thread_begins_because_dead_storage_holds_them_all_is_given_back() {
    if !has_uring() {
        return;
    }
    let Some(storage) = DeadStorage::mount() else { return };
    // The kernel leaves a file of this kind to one of its threads in any case.
    let mut rig = rig(File::open(PLAIN).unwrap());
    let (told, tell) = counter();
    let healthy = rig.ring.open(&Arc::new(File::open(PLAIN).unwrap()), tell).unwrap();
    rig.ring.begin(&healthy, 1, read()).unwrap();
    assert!(next(&mut rig.ring, &healthy).result.unwrap() > 0);
    let lessor = Lessor::new(memory_on(&storage));
    for tag in 0..20 {
        let mut ranges = GuestRanges::new(RangeList::default(), lessor.lease());
        ranges.extend([(GuestAddress(0), 512)]).unwrap();
        rig.begin(tag, Transfer::Read { at: 0, into: Buffer::Guest(ranges) });
    }
    rig.ring.submit();
    rig.ring.begin(&healthy, 2, read()).unwrap();
    let done = next(&mut rig.ring, &healthy);
    assert_eq!(done.result.unwrap_err().raw_os_error(), Some(libc::ECANCELED));
    assert_eq!(told.load(Ordering::SeqCst), 2);
    assert!(rig.ring.begin(&healthy, 3, read()).is_err(), "nor would this one be begun");
    let port = rig.port.take().unwrap();
    for _ in 0..20 - WORKERS {
        assert_eq!(next(&mut rig.ring, &port).result.unwrap_err().raw_os_error(), Some(libc::ECANCELED));
    }
    assert_eq!((rig.ring.in_flight(), rig.ring.next_moment()), (WORKERS, None), "these are with the storage");
    drop(storage);
    assert!(next(&mut rig.ring, &port).result.is_err());
    rig.ring.begin(&healthy, 4, read()).unwrap();
    assert!(next(&mut rig.ring, &healthy).result.unwrap() > 0);
}

/// A file that knows no reads without waiting.
const PLAIN: &str = "/proc/self/status";

/// Guest memory that lies on storage which does not answer: whoever touches it waits.
fn memory_on(storage: &DeadStorage) -> GuestMemory {
    let memory = GuestMemory::anonymous(&[(GuestAddress(0), 1 << 16)]).unwrap();
    let address = memory.mmap().get_host_address(vm_memory::GuestAddress(0)).unwrap();
    let file = File::open(storage.path()).unwrap();
    let (access, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_FIXED);
    // SAFETY: it takes the place of memory of the same size, which nobody refers to.
    let mapped = unsafe { libc::mmap(address.cast(), 1 << 16, access, flags, file.as_raw_fd(), 0) };
    assert_ne!(mapped, libc::MAP_FAILED);
    memory
}

/// Waits for the next transfer of a port, as an I/O thread does.
fn next(ring: &mut FileRing, port: &Port) -> Transferred {
    let begun = Instant::now();
    loop {
        ring.submit();
        ring.reap();
        if let Some(done) = ring.take(port) {
            return done;
        }
        assert!(begun.elapsed() < Duration::from_secs(10));
        thread::sleep(ring.next_moment().unwrap_or_default().max(Duration::from_millis(1)));
    }
}
