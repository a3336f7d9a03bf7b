//! Transfers by a ring, and what becomes of those whose owner goes.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::mpsc::{Receiver, channel};

use super::*;
use crate::memory::{GuestAddress, GuestRanges, HostBuffer, Lessor, RangeList};
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
    rig.begin(3, Transfer::Sync);
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
    for tag in 0..Uring::IN_FLIGHT as u64 {
        rig.begin(tag, Transfer::Read { at: 0, into: host(1) });
    }
    let port = rig.port.as_ref().unwrap();
    let refused = rig.ring.begin(port, 7, Transfer::Sync).unwrap_err();
    let tags: std::collections::HashSet<_> = (0..Uring::IN_FLIGHT).map(|_| rig.wait().tag).collect();
    assert_eq!(tags.len(), Uring::IN_FLIGHT);
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
    rig.begin(1, Transfer::Sync);
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
    assert!(one.ring.begin(other.port.as_ref().unwrap(), 1, Transfer::Sync).is_err());
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
    rig.begin(1, Transfer::Sync);
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
