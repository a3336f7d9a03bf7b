//! Streams of frames against the suite for backends, and against other ends that do what they should not.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::time::{Duration, Instant};

use super::*;
use crate::event::IoThread;
use crate::sys::non_blocking_pair;
use crate::testing::{NicConformance, NicDriver};

const SOON: Duration = Duration::from_secs(10);
const NEVER: Duration = Duration::from_millis(50);

/// A guest, and the other end of its card's stream, which waits.
fn guest() -> (NicDriver, UnixStream, IoThread) {
    let io_thread = IoThread::new("frame-stream-test").unwrap();
    let (ours, theirs) = non_blocking_pair().unwrap();
    theirs.set_nonblocking(false).unwrap();
    theirs.set_read_timeout(Some(SOON)).unwrap();
    let mut driver = NicDriver::new(FrameStream::new(ours).unwrap().into_nic(), &io_thread).unwrap();
    driver.fill();
    (driver, theirs, io_thread)
}

fn frame(len: usize) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x88, 0xb5];
    frame.extend((14..len).map(|at| at as u8));
    frame
}

fn on_wire(frame: &[u8]) -> Vec<u8> {
    [&u32::try_from(frame.len()).unwrap().to_be_bytes()[..], frame].concat()
}

/// A frame of the guest's without the header in front of it.
fn received(driver: &mut NicDriver, limit: Duration) -> Option<Vec<u8>> {
    driver.receive(limit).map(|packet| packet[12..].to_vec())
}

#[test]
fn two_cards_on_one_stream_pass_the_suite_for_backends() {
    let make = || {
        let (one, other) = non_blocking_pair().unwrap();
        let nic = |stream| FrameStream::new(stream).unwrap().into_nic();
        (nic(one), nic(other))
    };
    NicConformance::of_pairs(make).run();
}

#[test]
fn frames_arrive_whole_however_the_stream_cuts_them() {
    let (mut driver, mut theirs, _io_thread) = guest();
    let bytes: Vec<u8> = [60, 1514, 14, 9000].into_iter().flat_map(|len| on_wire(&frame(len))).collect();
    for piece in bytes.chunks(7) {
        theirs.write_all(piece).unwrap();
    }
    for len in [60, 1514, 14, 9000] {
        assert_eq!(received(&mut driver, SOON), Some(frame(len)));
    }
    assert!(driver.send(&[vec![0; 12], frame(60)].concat()));
    let mut wire = [0; 64];
    theirs.read_exact(&mut wire).unwrap();
    assert_eq!(wire[..], on_wire(&frame(60))[..]);
}

#[test]
fn what_is_no_frame_is_dropped_and_a_length_that_no_frame_has_ends_the_link() {
    for wrong in [0u32, 65_554, u32::MAX] {
        let (mut driver, mut theirs, _io_thread) = guest();
        theirs.write_all(&on_wire(&[1, 2, 3])).unwrap();
        theirs.write_all(&on_wire(&frame(100))).unwrap();
        assert_eq!(received(&mut driver, SOON), Some(frame(100)), "behind what is too short for a frame");
        assert!(driver.link_is_up());
        theirs.write_all(&wrong.to_be_bytes()).unwrap();
        theirs.write_all(&on_wire(&frame(100))).unwrap();
        assert_eq!(received(&mut driver, NEVER), None);
        assert!(wait_for(|| !driver.link_is_up()), "{wrong}");
        // The guest's frames go nowhere, and are not kept.
        for _ in 0..300 {
            assert!(driver.send(&[vec![0; 12], frame(60)].concat()) || driver.all_sent(SOON));
        }
    }
}

#[test]
fn the_guest_sees_that_the_other_end_is_gone_even_in_the_middle_of_a_frame() {
    let (mut driver, mut theirs, _io_thread) = guest();
    theirs.write_all(&on_wire(&frame(100))[..50]).unwrap();
    theirs.shutdown(Shutdown::Write).unwrap();
    assert!(wait_for(|| !driver.link_is_up()));
    assert_eq!(received(&mut driver, NEVER), None);
}

#[test]
fn an_end_that_takes_nothing_holds_up_its_own_card_alone_and_gets_all_frames_later() {
    let (mut driver, mut theirs, io_thread) = guest();
    let mut sent = 0;
    loop {
        if driver.send(&[vec![0; 12], frame(1514)].concat()) {
            sent += 1;
        } else if !driver.all_sent(NEVER) {
            break;
        }
        assert!(sent < 100_000, "it has room for everything");
    }
    let before = io_thread.metrics().turns;
    std::thread::sleep(NEVER);
    assert!(io_thread.metrics().turns - before < 5, "it spins");
    let mut wire = vec![0; 1518];
    for n in 0..sent {
        theirs.read_exact(&mut wire).unwrap_or_else(|e| panic!("{n} of {sent}: {e}"));
        assert_eq!(wire, on_wire(&frame(1514)));
    }
    assert!(driver.all_sent(SOON));
}

#[test]
fn an_end_that_says_nothing_but_what_is_no_frame_does_not_hold_up_other_cards() {
    let (mut flooded, mut theirs, io_thread) = guest();
    let (ours, mut other_end) = non_blocking_pair().unwrap();
    let mut other = NicDriver::new(FrameStream::new(ours).unwrap().into_nic(), &io_thread).unwrap();
    other.fill();
    let junk = on_wire(&[7]).repeat(10_000);
    let flood = std::thread::spawn(move || while theirs.write_all(&junk).is_ok() {});
    io_thread.measure_turns();
    for _ in 0..300 {
        other_end.write_all(&on_wire(&frame(60))).unwrap();
        assert_eq!(received(&mut other, SOON), Some(frame(60)));
    }
    let longest = io_thread.metrics().longest_turn.unwrap();
    assert!(longest < Duration::from_millis(100), "a turn took {longest:?} of CPU time");
    assert_eq!(received(&mut flooded, Duration::ZERO), None);
    // The stream ends with the card.
    drop((flooded, other));
    flood.join().unwrap();
}

fn wait_for(mut is_so: impl FnMut() -> bool) -> bool {
    let begun = Instant::now();
    while !is_so() {
        if begun.elapsed() > SOON {
            return false;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    true
}
