//! Ranges as the kernel reads and fills them.

use std::io::Read;

use super::*;
use crate::memory::{GuestAddress, GuestMemory, Lessor, RangeList};

fn ranges(memory: &GuestMemory, parts: impl IntoIterator<Item = (u64, u32)>) -> GuestRanges {
    let mut ranges = GuestRanges::new(RangeList::default(), Lessor::new(memory.clone()).lease());
    ranges.extend(parts.into_iter().map(|(gpa, len)| (GuestAddress(gpa), len))).unwrap();
    ranges
}

fn memory() -> GuestMemory {
    GuestMemory::anonymous(&[(GuestAddress(0), 0x1000), (GuestAddress(0x1000), 0x1000)]).unwrap()
}

#[test]
fn ranges_across_regions_reach_the_file_in_order() {
    let memory = memory();
    memory.write(GuestAddress(0xffe), b"abcd").unwrap();
    memory.write(GuestAddress(0x10), b"xy").unwrap();
    let file = tempfile::tempfile().unwrap();
    ranges(&memory, [(0xffe, 4), (0x10, 2)]).write_to(&file, 3).unwrap();
    let back = GuestMemory::anonymous(&[(GuestAddress(0), 0x1000)]).unwrap();
    ranges(&back, [(0, 9)]).read_from(&file, 0).unwrap();
    let mut bytes = [0xaa; 10];
    back.read(GuestAddress(0), &mut bytes).unwrap();
    assert_eq!(&bytes, b"\0\0\0abcdxy\0");
}

#[test]
fn more_ranges_than_one_call_takes_reach_the_file() {
    let memory = memory();
    let bytes: Vec<u8> = (0..0x1000u32).map(|index| (index % 251) as u8).collect();
    memory.write(GuestAddress(0), &bytes).unwrap();
    let pairs = || ranges(&memory, (0..0x1000 / 2).map(|index| (index * 2, 2)));
    let file = tempfile::tempfile().unwrap();
    pairs().write_to(&file, 0).unwrap();
    memory.write(GuestAddress(0), &[0; 0x1000]).unwrap();
    pairs().read_from(&file, 0).unwrap();
    let mut back = vec![0; 0x1000];
    memory.read(GuestAddress(0), &mut back).unwrap();
    assert_eq!(back, bytes);
}

#[test]
fn a_file_that_ends_early_is_an_error() {
    let file = tempfile::tempfile().unwrap();
    file.set_len(10).unwrap();
    let error = ranges(&memory(), [(0, 20)]).read_from(&file, 0).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    assert!(ranges(&memory(), [(0, 1)]).read_from(&file, u64::MAX).is_err());
}

#[test]
fn a_packet_that_fits_exactly_is_whole_and_a_longer_one_is_not() {
    let (sender, receiver) = std::os::unix::net::UnixDatagram::pair().unwrap();
    let memory = memory();
    let mut room = ranges(&memory, [(0, 4), (8, 4)]);
    for (packet, len, truncated) in [(&b"12345678"[..], 8, false), (b"123456789", 8, true), (b"123", 3, false)] {
        sender.send(packet).unwrap();
        assert_eq!(room.receive_from(&receiver, usize::MAX).unwrap(), Received { len, truncated });
        assert_eq!((room.len(), room.count()), (8, 2));
    }
}

#[test]
fn a_packet_goes_to_its_own_parts_and_no_further() {
    let (sender, receiver) = std::os::unix::net::UnixDatagram::pair().unwrap();
    let memory = memory();
    memory.write(GuestAddress(0), &[9; 16]).unwrap();
    let mut room = ranges(&memory, [(0, 4), (4, 4), (8, 4)]);
    for (parts, len, truncated) in [(1, 4, true), (2, 8, false), (3, 8, false), (4, 8, false)] {
        sender.send(b"12345678").unwrap();
        assert_eq!(room.receive_from(&receiver, parts).unwrap(), Received { len, truncated });
        assert_eq!((room.len(), room.count()), (12, 3));
        let mut bytes = [0; 8];
        room.copy_out(4, &mut bytes).unwrap();
        assert_eq!(&bytes, if parts == 1 { &[9; 8] } else { b"5678\x09\x09\x09\x09" });
    }
}

#[test]
fn a_packet_is_sent_behind_its_head_in_few_pieces_or_many() {
    let (sender, receiver) = std::os::unix::net::UnixDatagram::pair().unwrap();
    let memory = memory();
    memory.write(GuestAddress(0), &[7; 200]).unwrap();
    memory.write(GuestAddress(200), b"end").unwrap();
    // Copied, and in vectors: few of them, many, and more than any driver uses.
    for (pieces, len) in [(1, 1), (200, 1), (1, 60), (6, 60), (7, 60), (62, 60), (63, 60), (64, 60), (200, 60)] {
        let packet = ranges(&memory, (0..pieces).map(|_| (0, len)).chain([(200, 3)]));
        let total = u64::from(len) * pieces + 7;
        assert_eq!(packet.send_to(&sender, b"head").unwrap(), total);
        let mut bytes = [0; 13000];
        let received = receiver.recv(&mut bytes).unwrap();
        assert_eq!((received as u64, &bytes[..5]), (total, &b"head\x07"[..]));
        assert_eq!(&bytes[received - 4..received], b"\x07end");
    }
}

#[test]
fn a_stream_takes_what_it_has_room_for_in_order() {
    let (sender, mut receiver) = UnixStream::pair().unwrap();
    let memory = memory();
    memory.write(GuestAddress(0), b"one, two, three").unwrap();
    assert_eq!(ranges(&memory, [(5, 5), (0, 5), (10, 5)]).write_stream(&sender).unwrap(), 15);
    let mut bytes = [0; 15];
    receiver.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"two, one, three");

    let page = ranges(&memory, (0..64).map(|_| (0, 4096)));
    let mut taken = 0;
    let full = loop {
        match page.write_stream(&sender) {
            Ok(len) => taken += len,
            Err(e) => break e,
        }
    };
    assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
    drop(sender);
    assert_eq!(io::copy(&mut receiver, &mut io::sink()).unwrap(), taken);
}

#[test]
fn a_stream_whose_reader_is_gone_is_an_error_and_no_signal() {
    let (sender, receiver) = UnixStream::pair().unwrap();
    drop(receiver);
    let memory = memory();
    let pieces = ranges(&memory, [(0, 600), (700, 600)]);
    // SAFETY: zero is a value of a set, which the calls fill; each pointer leads to one.
    let is_pending = unsafe {
        let (mut pipe, mut pending) = (std::mem::zeroed(), std::mem::zeroed());
        libc::sigemptyset(&raw mut pipe);
        libc::sigaddset(&raw mut pipe, libc::SIGPIPE);
        assert_eq!(libc::pthread_sigmask(libc::SIG_BLOCK, &raw const pipe, std::ptr::null_mut()), 0);
        assert_eq!(pieces.write_stream(&sender).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        assert_eq!(libc::sigpending(&raw mut pending), 0);
        libc::sigismember(&raw const pending, libc::SIGPIPE)
    };
    assert_eq!(is_pending, 0);
}

#[test]
fn a_cut_stops_inside_a_vector() {
    let start = std::ptr::null_mut::<u8>();
    let vector = |at: usize, iov_len| libc::iovec { iov_base: start.wrapping_add(at).cast(), iov_len };
    let mut few = [vector(0, 0); CUT_AT_ONCE];
    let rest: Vec<_> = cut(&[vector(0, 2), vector(2, 4), vector(6, 1)], 3, &mut few)
        .iter()
        .map(|vector| (vector.iov_base.addr(), vector.iov_len))
        .collect();
    assert_eq!(rest, [(3, 3), (6, 1)]);
}

/// Panics when it is asked for its descriptor.
struct NoDescriptor;

impl AsFd for NoDescriptor {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        panic!("told to panic");
    }
}

#[test]
fn a_descriptor_that_panics_leaves_the_ranges_as_they_were() {
    let memory = memory();
    let mut ranges = ranges(&memory, [(0, 8)]);
    let received =
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| ranges.receive_from(NoDescriptor, usize::MAX)));
    assert!(received.is_err());
    assert_eq!(ranges.count(), 1, "a vector that leads to a byte of a stack frame that is gone");
}
