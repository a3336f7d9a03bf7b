//! What a crash leaves of a layer that is changed while no VM uses it: cut at each write, and in the middle of it.

use super::super::header::{BaseKey, BaseRef};
use super::super::load::{create, lengthen, new_header, read_header};
use super::super::place::MOST_PARTS;
use super::*;

const SIZE: u64 = 40 << 20;
const BLOCK: usize = 4096;

/// Bytes in memory, of which writes fail after some.
#[derive(Clone)]
struct Cut {
    bytes: Vec<u8>,
    left: usize,
    /// Half of the write that fails is there.
    tears: bool,
}

impl Blocks for Cut {
    fn read_at(&mut self, at: u64, into: &mut [u8]) -> io::Result<()> {
        let at = at as usize;
        into.copy_from_slice(self.bytes.get(at..at + into.len()).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let is_cut = self.left == 0;
        let len = if is_cut && self.tears { bytes.len() / 2 } else { bytes.len() };
        if !is_cut || self.tears {
            let at = at as usize;
            self.bytes.resize(self.bytes.len().max(at + len), 0);
            self.bytes[at..at + len].copy_from_slice(&bytes[..len]);
        }
        self.left = self.left.saturating_sub(1);
        if is_cut { Err(io::Error::from_raw_os_error(libc::ENOSPC)) } else { Ok(()) }
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A layer with one block written, and one zeroed.
fn layer() -> Cut {
    let base = BaseRef { identity: [1; 16], key: BaseKey::new(&[5; 64]).unwrap(), name: "base".into(), len: SIZE };
    let header = new_header([7; 16], SIZE, base);
    let mut blocks = Cut { bytes: vec![0; header.file_len() as usize], left: usize::MAX, tears: false };
    create(&mut blocks, &header).unwrap();
    let mut still = Still::open(&mut blocks, header).unwrap();
    still.write(&mut blocks, 0, &[1; BLOCK]).unwrap();
    still.zero(&mut blocks, 8192, 4096).unwrap();
    still.settle(&mut blocks).unwrap();
    blocks
}

fn open(blocks: &mut Cut) -> Still {
    let header = read_header(blocks).unwrap();
    Still::open(blocks, header).unwrap()
}

/// Does the work again and again, cut one write later each time; `look` says whether what is left is the new one, or panics.
fn at_each_write(work: impl Fn(&mut Still, &mut Cut) -> Result<()>, look: impl Fn(&mut Still, &mut Cut) -> bool) {
    let whole = layer();
    for tears in [false, true] {
        for left in 0.. {
            let mut blocks = Cut { left, tears, ..whole.clone() };
            let result = work(&mut open(&mut blocks), &mut blocks);
            blocks.left = usize::MAX;
            let is_new = look(&mut open(&mut blocks), &mut blocks);
            assert!(is_new || result.is_err(), "it was done");
            if result.is_ok() {
                assert!(left > 0);
                break;
            }
            // Doing it again makes it the new one.
            work(&mut open(&mut blocks), &mut blocks).unwrap();
            assert!(look(&mut open(&mut blocks), &mut blocks));
        }
    }
}

fn first_block(still: &Still, blocks: &mut Cut) -> u8 {
    let (len, Part::Own(place)) = still.first_part(0, SIZE) else { panic!("it was written") };
    assert!(len >= BLOCK as u64);
    let mut block = [0; BLOCK];
    blocks.read_at(place, &mut block).unwrap();
    block[7]
}

#[test]
fn a_layer_that_leaves_its_base_has_it_or_has_none_after_a_crash() {
    at_each_write(Still::leave_base, |still, blocks| {
        assert_eq!(first_block(still, blocks), 1);
        match &still.header().base {
            Some(base) => {
                assert_eq!((base.name.as_str(), still.first_part(4096, 4096)), ("base", (4096, Part::Base)));
                false
            }
            None => {
                assert_eq!(still.first_part(4096, 4096), (4096, Part::Zeroes));
                true
            }
        }
    });
    let mut blocks = layer();
    let has_key = |blocks: &Cut| blocks.bytes[..2 * BLOCK].windows(64).any(|bytes| bytes == [5; 64]);
    assert!(has_key(&blocks));
    open(&mut blocks).leave_base(&mut blocks).unwrap();
    assert!(!has_key(&blocks), "the base's key has nothing to do there");
}

#[test]
fn a_layer_that_grows_is_as_large_as_before_or_as_it_was_to_be_after_a_crash() {
    const LARGER: u64 = 100 << 20;
    at_each_write(
        |still, blocks| if still.header().capacity == LARGER { Ok(()) } else { still.grow(blocks, LARGER) },
        |still, blocks| {
            assert_eq!(first_block(still, blocks), 1);
            assert_eq!(still.first_part(8192, 4096), (4096, Part::Zeroes));
            assert_eq!(still.first_part(4096, 4096), (4096, Part::Base));
            still.header().capacity == LARGER
        },
    );
}

/// As whoever has a layer grow that is in use: `still` does not know of it.
fn lengthen_file(still: &Still, blocks: &mut Cut, capacity: u64) -> Result<()> {
    let mut header = still.header().clone();
    let longer = header.lengthened(capacity)?;
    lengthen(blocks, &mut header, longer)
}

#[test]
fn a_layer_that_grows_in_use_is_as_large_as_before_or_as_it_was_to_be_after_a_crash_and_has_what_was_written_meanwhile()
{
    for larger in [SIZE + BLOCK as u64, 100 << 20, 10 << 30] {
        at_each_write(
            |still, blocks| {
                let result = lengthen_file(still, blocks, larger);
                // The layer goes on with what it knows, whatever became of that.
                let left = std::mem::replace(&mut blocks.left, usize::MAX);
                still.write(blocks, 3 << 20, &[3; BLOCK]).unwrap();
                still.settle(blocks).unwrap();
                blocks.left = left;
                result
            },
            |still, blocks| {
                assert_eq!(first_block(still, blocks), 1);
                assert_eq!(still.first_part(8192, 4096), (4096, Part::Zeroes));
                assert_eq!(still.first_part(4096, 4096), (4096, Part::Base));
                assert!(matches!(still.first_part(3 << 20, 4096), (4096, Part::Own(_))));
                let capacity = still.header().capacity;
                if capacity == larger {
                    assert_eq!(still.first_part(larger - 4096, 4096), (4096, Part::Zeroes));
                }
                assert!([SIZE, larger].contains(&capacity));
                capacity == larger
            },
        );
    }
}

#[test]
fn a_layer_grows_in_use_again_and_again_until_its_map_has_many_parts_and_then_once_while_it_is_not() {
    let (mut blocks, mut capacity) = (layer(), SIZE);
    for round in 0..MOST_PARTS as u8 {
        capacity += 33 << 20;
        lengthen_file(&open(&mut blocks), &mut blocks, capacity).unwrap();
        let mut still = open(&mut blocks);
        still.write(&mut blocks, capacity - 4096, &[round; BLOCK]).unwrap();
        still.settle(&mut blocks).unwrap();
    }
    let written = |blocks: &mut Cut| {
        let still = open(blocks);
        for round in 0..MOST_PARTS as u8 {
            let at = SIZE + (u64::from(round) + 1) * (33 << 20) - 4096;
            let (4096, Part::Own(place)) = still.first_part(at, 4096) else { panic!("it was written") };
            let mut block = [0; BLOCK];
            blocks.read_at(place, &mut block).unwrap();
            assert_eq!(block, [round; BLOCK], "at {at}");
        }
        assert_eq!(first_block(&still, blocks), 1);
    };
    written(&mut blocks);
    let said = lengthen_file(&open(&mut blocks), &mut blocks, capacity + (33 << 20)).unwrap_err().to_string();
    assert_eq!(said, "it has grown in use 64 times: grow it once while no VM uses it");
    let mut still = open(&mut blocks);
    still.grow(&mut blocks, capacity + (33 << 20)).unwrap();
    written(&mut blocks);
    lengthen_file(&still, &mut blocks, capacity + (66 << 20)).unwrap();
    written(&mut blocks);
}

#[test]
fn a_layer_grows_again_and_again_and_all_of_it_is_written() {
    let mut blocks = layer();
    for (round, capacity) in (2..6).zip([SIZE + 4096, SIZE + (1 << 20), 90 << 20, 91 << 20]) {
        open(&mut blocks).grow(&mut blocks, capacity).unwrap();
        let mut still = open(&mut blocks);
        assert_eq!(still.first_part(capacity - 4096, 4096), (4096, Part::Zeroes), "it was not there before");
        let last = capacity / (1 << 20) * (1 << 20);
        for at in (0..last).step_by(1 << 20) {
            still.write(&mut blocks, at, &vec![round; 1 << 20]).unwrap();
        }
        still.write(&mut blocks, capacity - 4096, &[round; BLOCK]).unwrap();
        still.settle(&mut blocks).unwrap();
        let still = open(&mut blocks);
        let mut at = 0;
        while at < last {
            let (len, Part::Own(place)) = still.first_part(at, last - at) else { panic!("it was written") };
            let mut bytes = vec![0; len as usize];
            blocks.read_at(place, &mut bytes).unwrap();
            assert!(bytes.iter().all(|byte| *byte == round), "at {at}");
            at += len;
        }
        assert!(blocks.bytes.len() as u64 <= still.header().file_len());
    }
}

#[test]
fn a_write_that_fails_leaves_each_block_as_it_was_or_as_it_was_to_be() {
    let whole = layer();
    for left in 0..8 {
        let mut blocks = Cut { left, ..whole.clone() };
        let mut still = open(&mut blocks);
        let done = still.write(&mut blocks, 0, &[2; 3 * BLOCK]).and_then(|()| still.settle(&mut blocks));
        blocks.left = usize::MAX;
        let still = open(&mut blocks);
        let first = first_block(&still, &mut blocks);
        let second = still.first_part(8192, 4096).1;
        if done.is_ok() {
            assert!(first == 2 && matches!(second, Part::Own(_)), "{left}");
            return;
        }
        assert!([1, 2].contains(&first) && second == Part::Zeroes, "{left}");
    }
    panic!("eight writes are enough");
}
