//! The layer against the suite for disk backends, a model, and losses of power.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use super::super::blocks::Blocks;
use super::super::entry::CLUSTER;
use super::super::header::{BaseKey, BaseRef, Header};
use super::super::load;
use super::*;
use crate::block::Tag;
use crate::memory::Buffer;
use crate::testing::{DiskConformance, IoRig, SimulatedDisk, SimulatedDiskHandle};

/// A disk that is driven from here, one operation after the other.
struct Driven {
    disk: Box<dyn DiskBackend>,
    rig: IoRig,
    tags: Slab<()>,
}

impl Driven {
    fn new(mut disk: impl DiskBackend + 'static) -> Self {
        let mut rig = IoRig::new();
        disk.attach(&mut rig.turn()).unwrap();
        Self { disk: Box::new(disk), rig, tags: Slab::new(64) }
    }

    fn begin(&mut self, operation: Operation) -> Tag {
        let tag = self.tags.insert(()).unwrap();
        assert!(self.disk.submit(&mut self.rig.turn(), tag, operation).is_ok());
        tag
    }

    /// Waits until nothing is in flight; gives what has ended, in the order of their ends.
    fn finish(&mut self) -> Vec<Done> {
        let mut done = Vec::new();
        self.disk.commit(&mut self.rig.turn());
        while !self.tags.is_empty() {
            while let Some(one) = self.disk.completed(&mut self.rig.turn()) {
                self.tags.remove(one.tag).expect("it was asked for");
                done.push(one);
            }
            if !self.tags.is_empty() {
                for event in self.rig.wait(Duration::from_secs(10), |wants| self.disk.wants(wants)).unwrap() {
                    self.disk.woken(&mut self.rig.turn(), &event);
                }
            }
        }
        done
    }

    fn run(&mut self, operation: Operation) -> io::Result<Operation> {
        self.begin(operation);
        let Done { operation, result, .. } = self.finish().remove(0);
        result.map(|()| operation)
    }

    fn read(&mut self, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.read_at(at, &mut bytes).unwrap();
        bytes
    }

    fn flush(&mut self) {
        self.run(Operation::Flush).unwrap();
    }
}

fn write_of(at: u64, bytes: &[u8]) -> Operation {
    let mut from = HostBuffer::new(bytes.len());
    from.copy_from_slice(bytes);
    Operation::Write { at, from: Buffer::Host(from), stable: false }
}

impl Blocks for Driven {
    fn read_at(&mut self, at: u64, into: &mut [u8]) -> io::Result<()> {
        for (offset, piece) in (at..).step_by(128 << 10).zip(into.chunks_mut(128 << 10)) {
            let room = Buffer::Host(HostBuffer::new(piece.len()));
            let Operation::Read { into, .. } = self.run(Operation::Read { at: offset, into: room })? else {
                return Err(io::ErrorKind::Other.into());
            };
            into.copy_out(0, piece).map_err(io::Error::other)?;
        }
        Ok(())
    }

    fn write_at(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        for (offset, piece) in (at..).step_by(128 << 10).zip(bytes.chunks(128 << 10)) {
            self.run(write_of(offset, piece))?;
        }
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.run(Operation::Flush).map(drop)
    }
}

const SIZE: u64 = 2 << 20;

fn header() -> Header {
    load::new_header(
        [7; 16],
        SIZE,
        BaseRef { identity: [1; 16], key: BaseKey::new(&[5; 64]).unwrap(), name: "base".into(), len: SIZE },
    )
}

/// A top with an empty layer, and its handle.
fn new_top(top: impl Fn(u64) -> SimulatedDisk) -> SimulatedDiskHandle {
    let handle = top(header().file_len()).handle();
    load::create(&mut Driven::new(handle.power_failure()), &header()).unwrap();
    handle
}

/// What lies on the disk of a handle, as if the power had come back.
fn again(
    handle: &SimulatedDiskHandle,
    like: impl Fn(SimulatedDisk) -> SimulatedDisk,
) -> Layer<SimulatedDisk, SimulatedDisk> {
    let mut blocks = Driven::new(handle.power_failure());
    let header = load::read_header(&mut blocks).unwrap();
    load::open(&mut blocks, header, like(handle.power_failure()), base()).unwrap()
}

/// Each block has its number in each byte.
fn base() -> SimulatedDisk {
    let handle = SimulatedDisk::new(SIZE).handle();
    let mut disk = Driven::new(handle.power_failure());
    let bytes: Vec<u8> = (0..SIZE).map(|at| (at / BLOCK) as u8).collect();
    disk.write_at(0, &bytes).unwrap();
    disk.flush();
    handle.power_failure()
}

type Like = fn(SimulatedDisk) -> SimulatedDisk;

const LIKE: [Like; 4] = [
    |disk| disk,
    |disk| disk.delay(Duration::from_micros(200)),
    |disk| disk.room(1),
    |disk| disk.delay(Duration::from_micros(50)).room(3),
];

#[test]
fn it_is_a_backend_on_every_disk() {
    for like in LIKE {
        let make = move || again(&new_top(SimulatedDisk::new), like);
        DiskConformance::new(move || Box::new(make()))
            .losing_power(move || {
                let handle = new_top(SimulatedDisk::new);
                (Box::new(again(&handle, like)), Box::new(move || Box::new(again(&handle, like))))
            })
            .run();
    }
}

#[test]
fn a_failure_below_is_that_of_one_operation_and_a_flush_that_failed_is_tried_again() {
    // The data's sync, the page, or the page's sync.
    for working in 0..3 {
        let handle = new_top(SimulatedDisk::new);
        let mut disk = Driven::new(again(&handle, |disk| disk));
        disk.write_at(0, &[1; 8192]).unwrap();
        handle.fail(1);
        assert!(disk.run(write_of(4096, &[2; 4096])).is_err());
        handle.fail(1);
        assert!(disk.read_at(0, &mut [0; 4096]).is_err());
        assert_eq!(disk.read(0, 4096), [1; 4096]);
        disk.begin(Operation::Flush);
        disk.begin(Operation::Flush);
        assert!(disk.finish().iter().all(|done| done.result.is_ok()), "both are one");
        disk.write_at(CLUSTER, &[3; 4096]).unwrap();
        handle.fail_after(working, 1);
        assert!(disk.run(Operation::Flush).is_err(), "after {working}");
        disk.flush();
        let mut after = Driven::new(again(&handle, |disk| disk));
        assert_eq!((after.read(CLUSTER, 4096), after.read(0, 4096)), (vec![3; 4096], vec![1; 4096]), "after {working}");
    }
}

#[test]
fn what_changed_is_stable_after_a_while_and_a_failure_of_that_is_told_to_the_next_flush() {
    let handle = new_top(SimulatedDisk::new);
    let mut disk = Driven::new(again(&handle, |disk| disk));
    let wait = |disk: &mut Driven| {
        for _ in 0..3 {
            for event in disk.rig.wait(Duration::from_millis(300), |wants| disk.disk.wants(wants)).unwrap() {
                disk.disk.woken(&mut disk.rig.turn(), &event);
            }
            assert!(disk.disk.completed(&mut disk.rig.turn()).is_none());
        }
    };
    disk.write_at(0, &[1; 4096]).unwrap();
    wait(&mut disk);
    assert_eq!(Driven::new(again(&handle, |disk| disk)).read(0, 4096), [1; 4096]);

    let mut disk = Driven::new(again(&handle, |disk| disk));
    disk.write_at(4096, &[2; 4096]).unwrap();
    handle.fail(1);
    wait(&mut disk);
    assert!(disk.run(Operation::Flush).is_err(), "somebody has to be told");
    disk.flush();
    assert_eq!(Driven::new(again(&handle, |disk| disk)).read(4096, 4096), [2; 4096]);
}

#[test]
fn what_was_never_written_is_the_bases_and_the_base_stays_as_it_is() {
    let handle = new_top(SimulatedDisk::new);
    let mut disk = Driven::new(again(&handle, |disk| disk));
    disk.write_at(5 * BLOCK, &[0xaa; 2 * BLOCK as usize]).unwrap();
    disk.run(Operation::Discard(ByteRange { at: 20 * BLOCK, len: 30 * BLOCK })).unwrap();
    let all = disk.read(0, SIZE as usize);
    for (block, bytes) in all.chunks(BLOCK as usize).enumerate() {
        let expected = match block {
            5 | 6 => 0xaa,
            20..50 => 0,
            other => other as u8,
        };
        assert!(bytes.iter().all(|byte| *byte == expected), "block {block}");
    }
    disk.flush();
    assert_eq!(Driven::new(again(&handle, |disk| disk)).read(0, SIZE as usize), all);
}

#[test]
fn data_in_many_places_are_read_without_a_wait_between_the_pieces() {
    let began = std::time::Instant::now();
    for like in LIKE {
        let handle = new_top(SimulatedDisk::new);
        let mut disk = Driven::new(again(&handle, like));
        for block in (1..SIZE / BLOCK).step_by(2) {
            disk.write_at(block * BLOCK, &[block as u8 ^ 0xff; BLOCK as usize]).unwrap();
        }
        for at in (0..SIZE).step_by(128 << 10) {
            disk.begin(Operation::Read { at, into: Buffer::Host(HostBuffer::new(128 << 10)) });
        }
        for done in disk.finish() {
            let Operation::Read { at, into } = done.operation else { panic!("another operation") };
            let mut bytes = vec![0; 128 << 10];
            into.copy_out(0, &mut bytes).unwrap();
            for (block, bytes) in (at / BLOCK..).zip(bytes.chunks(BLOCK as usize)) {
                let expected = if block % 2 == 1 { block as u8 ^ 0xff } else { block as u8 };
                assert!(bytes.iter().all(|byte| *byte == expected), "block {block}");
            }
        }
    }
    // A wait for what does not come takes ten seconds, and there would be many.
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
}

#[test]
fn space_is_used_again_only_once_that_is_stable() {
    let handle = new_top(SimulatedDisk::new);
    let mut disk = Driven::new(again(&handle, |disk| disk));
    // Each round writes all of it and lets go of it: without using clusters again there would be no room for the third.
    for round in 0..8_u8 {
        for at in (0..SIZE).step_by(128 << 10) {
            disk.write_at(at, &vec![round; 128 << 10]).unwrap();
        }
        assert!(disk.read(0, SIZE as usize).iter().all(|byte| *byte == round), "round {round}");
        disk.run(Operation::Discard(ByteRange { at: 0, len: SIZE })).unwrap();
        disk.flush();
        disk.flush();
    }
    assert!(disk.read(0, SIZE as usize).iter().all(|byte| *byte == 0));
}

/// Numbers that are the same each time.
struct Chance(u64);

impl Chance {
    fn below(&mut self, count: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % count
    }
}

#[test]
fn after_a_loss_of_power_each_block_is_as_it_was_or_as_it_was_to_be() {
    for seed in 1..40 {
        let (handle, mut chance) = (new_top(SimulatedDisk::new), Chance(seed * 0x9e37_79b9));
        let mut disk = Driven::new(again(&handle, LIKE[seed as usize % 4]));
        // What each block may hold: the last is what it holds while the power is there.
        let mut may: BTreeMap<u64, Vec<u8>> = (0..SIZE / BLOCK).map(|block| (block, vec![block as u8])).collect();
        for step in 0..60_u8 {
            let first = chance.below(SIZE / BLOCK);
            let count = 1 + chance.below(20).min(SIZE / BLOCK - first - 1);
            let value = match chance.below(10) {
                0 => {
                    disk.flush();
                    may.values_mut().for_each(|values| drop(values.drain(..values.len() - 1)));
                    continue;
                }
                1 | 2 => {
                    let range = ByteRange { at: first * BLOCK, len: count * BLOCK };
                    disk.run(Operation::WriteZeroes { range, unmap: true, stable: false }).unwrap();
                    0
                }
                _ => {
                    disk.write_at(first * BLOCK, &vec![100 + step; (count * BLOCK) as usize]).unwrap();
                    100 + step
                }
            };
            (first..first + count).for_each(|block| may.get_mut(&block).unwrap().push(value));
        }
        drop(disk);
        let all = Driven::new(again(&handle, |disk| disk)).read(0, SIZE as usize);
        for (block, bytes) in (0..).zip(all.chunks(BLOCK as usize)) {
            assert!(bytes.iter().all(|byte| *byte == bytes[0]), "seed {seed}: block {block} is torn");
            assert!(
                may[&block].contains(&bytes[0]),
                "seed {seed}: block {block} is {}, not one of {:?}",
                bytes[0],
                may[&block]
            );
        }
    }
}

#[test]
fn a_damaged_page_is_refused_if_both_of_its_places_are() {
    let handle = new_top(SimulatedDisk::new);
    Driven::new(again(&handle, |disk| disk)).run(write_of(0, &[1; 4096])).unwrap();
    let mut blocks = Driven::new(handle.power_failure());
    let header = load::read_header(&mut blocks).unwrap();
    blocks.write_at(header.slot_at(0, 0), &[0; 4096]).unwrap();
    blocks.flush();
    let error = load::open(&mut blocks, header.clone(), handle.power_failure(), base()).err().unwrap();
    assert_eq!(error.to_string(), "page 0 of the map is damaged, in both of its places");
    blocks.write_at(0, &[0; 8192]).unwrap();
    blocks.flush();
    assert!(load::read_header(&mut blocks).unwrap_err().to_string().contains("it is no layer"));
}
