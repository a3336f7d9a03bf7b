use proptest::collection::vec;
use proptest::prelude::*;

use super::super::output_reader::PATIENCE;
use super::*;
use crate::error::ErrorKind;

fn take(reader: &OutputReader, most: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    let count = reader.take(&mut bytes, most);
    reader.delivered(count);
    bytes
}

fn fill(buffer: &mut OutputBuffer) {
    buffer.write_all(&vec![b'x'; CAPACITY]).unwrap();
}

#[test]
fn bytes_come_out_as_they_went_in_to_each_reader() {
    let mut buffer = OutputBuffer::new().unwrap();
    let (first, second) = (buffer.reader("a reader"), buffer.reader("a reader"));
    buffer.write_all(b"abc").unwrap();
    assert_eq!(take(&first, 2), b"ab");
    buffer.write_all(b"d").unwrap();
    assert_eq!(take(&first, 9), b"cd");
    assert_eq!(take(&second, 9), b"abcd");
    let late = buffer.reader("a reader");
    assert_eq!(take(&late, 9), b"", "a reader gets what is written after it came");
}

#[test]
fn the_first_byte_is_announced_once_and_so_is_a_buffer_that_fills_up() {
    let mut buffer = OutputBuffer::new().unwrap();
    let reader = buffer.reader("a reader");
    buffer.write_all(b"a").unwrap();
    assert!(buffer.filled().take());
    buffer.write_all(b"b").unwrap();
    assert!(!buffer.filled().take());
    buffer.write_all(&vec![b'x'; CAPACITY / 2]).unwrap();
    assert!(buffer.filled().take());
    assert!(buffer.announce(1), "there is more already");
    assert!(!buffer.announce(buffer.written()));
    buffer.write_all(b"c").unwrap();
    assert!(buffer.filled().take());
    drop(reader);
}

#[test]
fn waiting_ends_when_everything_was_delivered_or_a_caller_is_in_a_hurry() {
    let mut buffer = OutputBuffer::new().unwrap();
    buffer.wait_drained();
    let reader = buffer.reader("a reader");
    buffer.write_all(b"ab").unwrap();
    let thread = std::thread::spawn(move || {
        let bytes = take(&reader, 2);
        (reader, bytes)
    });
    buffer.wait_drained();
    let (_reader, bytes) = thread.join().unwrap();
    assert_eq!(bytes, b"ab");
    buffer.write_all(b"nobody reads this").unwrap();
    let begin = Instant::now();
    buffer.hurry();
    buffer.wait_drained();
    assert!((LAST_PATIENCE_IN_A_HURRY..LAST_PATIENCE).contains(&begin.elapsed()), "{:?}", begin.elapsed());
}

#[test]
fn bytes_that_are_under_way_are_waited_for() {
    let mut buffer = OutputBuffer::new().unwrap();
    let reader = buffer.reader("a reader");
    buffer.write_all(b"ab").unwrap();
    assert_eq!(reader.take(&mut Vec::new(), 2), 2);
    let thread = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(50));
        reader.delivered(2);
        reader
    });
    let begin = Instant::now();
    buffer.wait_drained();
    assert!(begin.elapsed() >= Duration::from_millis(50));
    thread.join().unwrap();
}

#[test]
fn a_reader_that_takes_a_little_now_and_then_does_not_hold_up_a_caller_in_a_hurry() {
    let mut buffer = OutputBuffer::new().unwrap();
    let reader = buffer.reader("a reader");
    buffer.write_all(&[b'x'; 100]).unwrap();
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || {
        while stopped.recv_timeout(LAST_PATIENCE_IN_A_HURRY / 4).is_err() {
            take(&reader, 1);
        }
    });
    buffer.hurry();
    let begin = Instant::now();
    buffer.wait_drained();
    assert!(begin.elapsed() < 10 * LAST_PATIENCE_IN_A_HURRY, "{:?}", begin.elapsed());
    stop.send(()).unwrap();
    thread.join().unwrap();
}

#[test]
fn a_buffer_without_a_reader_stays_empty() {
    let mut buffer = OutputBuffer::new().unwrap();
    buffer.write_all(&vec![b'x'; 2 * CAPACITY]).unwrap();
    assert!(!buffer.holds_back() && !buffer.filled().take());
    assert!(buffer.state().bytes.is_empty() && buffer.counts().is_empty());
}

#[test]
fn a_full_buffer_first_holds_back_and_then_drops_the_oldest() {
    let mut buffer = OutputBuffer::new().unwrap();
    let reader = buffer.reader("a reader");
    fill(&mut buffer);
    assert!(buffer.holds_back() && buffer.keeps_waiting() && !buffer.releases());
    buffer.write_all(b"new").unwrap();
    assert_eq!(buffer.counts()[0].dropped, 3);
    std::thread::sleep(PATIENCE + Duration::from_millis(10));
    assert!(!buffer.holds_back());
    assert!(buffer.releases(), "the guest is told once");
    assert!(!buffer.releases());
    take(&reader, 1);
    assert!(!buffer.holds_back());
    buffer.write_all(b"y").unwrap();
    assert!(buffer.holds_back(), "patience starts anew after the reader took something");
    let bytes = take(&reader, 2 * CAPACITY);
    assert_eq!((bytes.len(), &bytes[bytes.len() - 4..]), (CAPACITY, &b"newy"[..]));
    assert!(buffer.releases());
}

#[test]
fn the_memory_of_a_buffer_is_bounded() {
    let mut buffer = OutputBuffer::new().unwrap();
    let _reader = buffer.reader("a reader");
    for _ in 0..5 * CAPACITY {
        buffer.write_all(b"x").unwrap();
    }
    assert!(buffer.state().bytes.capacity() <= 2 * CAPACITY, "{}", buffer.state().bytes.capacity());
}

#[test]
fn a_slow_reader_misses_bytes_and_holds_up_neither_the_guest_nor_a_fast_one() {
    let mut buffer = OutputBuffer::new().unwrap();
    let (slow, fast) = (buffer.reader("a reader"), buffer.reader("a reader"));
    for _ in 0..3 {
        fill(&mut buffer);
        assert_eq!(take(&fast, CAPACITY).len(), CAPACITY);
        assert!(!buffer.holds_back());
    }
    let counts = buffer.counts();
    assert_eq!((counts[0].dropped, counts[0].waiting, counts[0].delivered), (2 * CAPACITY as u64, CAPACITY as u64, 0));
    assert_eq!((counts[1].dropped, counts[1].waiting, counts[1].delivered), (0, 0, 3 * CAPACITY as u64));
    assert_eq!(take(&slow, usize::MAX).len(), CAPACITY);
}

#[test]
fn what_a_reader_that_fails_or_is_gone_misses_is_lost_and_nobody_waits_for_it() {
    let mut buffer = OutputBuffer::new().unwrap();
    let reader = buffer.reader("a reader");
    buffer.write_all(b"abc").unwrap();
    assert_eq!(reader.take(&mut Vec::new(), 1), 1);
    reader.failed(Error::new(ErrorKind::Console, "refused"));
    reader.listen(Listening::Gone);
    fill(&mut buffer);
    assert!(!buffer.holds_back() && buffer.state().bytes.is_empty());
    assert_eq!(buffer.counts()[0].lost, CAPACITY as u64 + 3);
    reader.listen(Listening::Fails);
    fill(&mut buffer);
    buffer.write_all(b"z").unwrap();
    assert!(!buffer.holds_back());
    let counts = &buffer.counts()[0];
    assert_eq!((counts.lost, counts.waiting, counts.dropped), (CAPACITY as u64 + 4, CAPACITY as u64, 0));
    assert_eq!(counts.last_error.as_ref().unwrap().to_string(), "refused");
    let begin = Instant::now();
    buffer.wait_drained();
    assert!(begin.elapsed() < LAST_PATIENCE);
}

#[test]
fn a_reader_has_ended_when_it_has_all_of_what_there_was() {
    let mut buffer = OutputBuffer::new().unwrap();
    let reader = buffer.reader("a reader");
    buffer.write_all(b"a").unwrap();
    assert!(!reader.has_ended());
    buffer.end();
    assert!(buffer.filled().take());
    assert!(!reader.has_ended());
    take(&reader, 1);
    assert!(reader.has_ended());
}

#[test]
fn what_waits_for_a_reader_that_failed_is_waited_for_in_the_end_and_lost_with_it() {
    let mut buffer = OutputBuffer::new().unwrap();
    let reader = buffer.reader("a reader");
    buffer.write_all(b"abc").unwrap();
    reader.take(&mut Vec::new(), 1);
    reader.listen(Listening::Fails);
    buffer.end();
    assert_eq!((buffer.counts()[0].waiting, buffer.missed()), (3, (0, 0)));
    let thread = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(50));
        drop(reader);
    });
    let begin = Instant::now();
    buffer.wait_drained();
    assert!((Duration::from_millis(50)..LAST_PATIENCE).contains(&begin.elapsed()), "{:?}", begin.elapsed());
    thread.join().unwrap();
    assert_eq!((buffer.counts()[0].waiting, buffer.missed()), (0, (0, 3)));
    assert_eq!(buffer.tell_missed(), Some((0, 3)));
    assert_eq!(buffer.tell_missed(), None, "it was told");
}

#[test]
fn nothing_is_forgotten_that_one_of_several_readers_has_yet_to_take() {
    let mut buffer = OutputBuffer::new().unwrap();
    let readers: Vec<_> = (0..5).map(|_| buffer.reader("a reader")).collect();
    let mut taken = vec![Vec::new(); readers.len()];
    for round in 0..2000usize {
        buffer.write_all(&[round as u8, (round >> 8) as u8]).unwrap();
        let index = round * 7 % 11;
        match readers.get(index) {
            // One of them fails now and then, and keeps what it has yet to take.
            Some(reader) if round % 5 == 0 => reader.listen(Listening::Fails),
            Some(reader) => {
                reader.listen(Listening::Reads);
                taken[index].extend(take(reader, round % 13));
            }
            None => {}
        }
        let held = buffer.counts().iter().map(|counts| counts.waiting).max();
        assert_eq!(Some(buffer.state().bytes.len() as u64), held, "neither more nor less than is needed");
    }
    for (reader, mut taken) in readers.iter().zip(taken) {
        taken.extend(take(reader, usize::MAX));
        assert!(taken.chunks(2).zip(0usize..).all(|(bytes, round)| bytes == [round as u8, (round >> 8) as u8]));
        assert_eq!(taken.len(), 4000);
    }
    assert!(buffer.state().bytes.is_empty());
}

/// The byte at a position of all output.
fn byte_at(position: u64) -> u8 {
    (position % 251) as u8
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever the others do, a reader gets each byte in order or misses it, and the counts say so.
    #[test]
    fn each_byte_reaches_a_reader_or_is_counted_as_missed(
        count in 1..4usize,
        steps in vec((0..8u8, 0..4usize, prop_oneof![4 => 0..300usize, 1 => 0..2 * CAPACITY]), 0..40),
    ) {
        let mut buffer = OutputBuffer::new().unwrap();
        let readers: Vec<_> = (0..count).map(|_| buffer.reader("a reader")).collect();
        let mut gone = vec![false; count];
        for (step, which, len) in steps {
            let which = which % count;
            match step {
                0..=2 => {
                    let from = buffer.written();
                    let bytes: Vec<u8> = (from..from + len as u64).map(byte_at).collect();
                    buffer.write_all(&bytes).unwrap();
                }
                3..=5 => {
                    let before = buffer.counts()[which].clone();
                    let bytes = take(&readers[which], len);
                    let from = before.delivered + before.dropped + before.lost;
                    let expected: Vec<u8> = (from..from + bytes.len() as u64).map(byte_at).collect();
                    prop_assert!(bytes == expected, "bytes that are not the next ones");
                    prop_assert_eq!(bytes.len() as u64, before.waiting.min(len as u64));
                }
                6 => {
                    readers[which].listen(Listening::Fails);
                    gone[which] = false;
                }
                _ => {
                    readers[which].listen(if len % 2 == 0 { Listening::Gone } else { Listening::Reads });
                    gone[which] = len % 2 == 0;
                }
            }
            for (counts, gone) in buffer.counts().into_iter().zip(&gone) {
                let all = counts.delivered + counts.dropped + counts.lost + counts.waiting;
                prop_assert_eq!(all, buffer.written(), "{:?}", counts);
                prop_assert!(counts.waiting <= CAPACITY as u64 && (!gone || counts.waiting == 0), "{:?}", counts);
            }
            prop_assert!(buffer.state().bytes.len() <= CAPACITY);
        }
    }
}
