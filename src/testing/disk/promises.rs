//! What a backend promises of each operation, and of the data.

use std::time::Duration;

use super::bench::Bench;
use super::data::{bytes, fill, host, noise};
use super::suite::{Rule, Suite};
use crate::block::{ByteRange, DiskInfo, Operation};
use crate::memory::Buffer;

pub(super) const RULES: &[Rule] = &[
    ("its info is possible and stays the same", info_is_possible_and_stays),
    ("each operation is completed once, under its tag, and given back", each_operation_is_completed_once),
    ("what is written is read back", what_is_written_is_read_back),
    ("a buffer in many parts is one buffer", many_parts_are_one_buffer),
    ("operations in flight at once do not disturb each other", operations_at_once_are_apart),
    ("zeroes are read where they were asked for, and nowhere else", zeroes_are_read_where_asked_for),
    ("a discard spares its neighbours", a_discard_spares_its_neighbours),
    ("no call blocks", no_call_blocks),
];

/// A call that takes longer than this has waited for something.
const LONGEST_CALL: Duration = Duration::from_millis(250);

fn info_is_possible_and_stays(suite: &Suite) -> Result<(), String> {
    let mut bench = suite.bench()?;
    let before = bench.info();
    before.check().map_err(|error| error.to_string())?;
    if before.capacity < 1 << 20 {
        return Err(format!("the suite needs a disk of 1 MiB, and this one has {} bytes", before.capacity));
    }
    bench.succeed(write(0, host(before.block_size.into())))?;
    bench.succeed(Operation::Flush)?;
    bench.refresh();
    let after = bench.info();
    if before == after { Ok(()) } else { Err(format!("it was {before:?}, and is {after:?}")) }
}

fn each_operation_is_completed_once(suite: &Suite) -> Result<(), String> {
    let mut bench = suite.bench()?;
    let block = block(&bench);
    for round in 0..3 {
        let at = |index: u64| (round * 16 + index) * block;
        let range = |index| ByteRange { at: at(index), len: block };
        let guest = |bench: &mut Bench| bench.arena.guest(block, 1);
        let info = bench.info();
        let mut operations = vec![
            write(at(0), guest(&mut bench)),
            read(at(1), guest(&mut bench)),
            write(at(2), host(block)),
            Operation::Flush,
            read(at(3), host(block)),
            Operation::Write { at: at(4), from: guest(&mut bench), stable: true },
            Operation::Discard(range(5)),
            Operation::WriteZeroes { range: range(6), unmap: false, stable: false },
            Operation::WriteZeroes { range: range(7), unmap: true, stable: true },
            Operation::Flush,
        ];
        operations.retain(|operation| takes(&info, operation));
        bench.begin(operations)?;
        bench.finish()?.into_iter().try_for_each(|finished| finished.result.map_err(|error| error.to_string()))?;
        bench.linger(Duration::from_millis(10))?;
    }
    Ok(())
}

/// Whether the backend says that it takes this.
fn takes(info: &DiskInfo, operation: &Operation) -> bool {
    match operation {
        Operation::Discard(_) => info.discard,
        Operation::WriteZeroes { .. } => info.write_zeroes,
        _ => true,
    }
}

fn what_is_written_is_read_back(suite: &Suite) -> Result<(), String> {
    let mut bench = suite.bench()?;
    let (info, block, largest) = (bench.info(), block(&bench), largest(&bench));
    let mut seed = 0;
    for len in [block, 3 * block, largest] {
        for at in [0, block, info.capacity - len] {
            for (writes_guest, reads_guest) in [(true, true), (true, false), (false, true), (false, false)] {
                seed += 1;
                let data = noise(seed, len);
                let buffer = |bench: &mut Bench, guest| if guest { bench.arena.guest(len, 1) } else { host(len) };
                let from = fill(buffer(&mut bench, writes_guest), &data);
                let Operation::Write { from, .. } = bench.succeed(write(at, from))? else { return Err(other()) };
                if bytes(&from) != data && writes_guest {
                    return Err(format!("a write of {len} bytes at {at} changed the guest's buffer"));
                }
                bench.succeed(Operation::Flush)?;
                let into = fill(buffer(&mut bench, reads_guest), &vec![0x55; data.len()]);
                let into = read_into(&mut bench, at, into)?;
                same(&bytes(&into), &data, at)?;
            }
        }
    }
    Ok(())
}

fn many_parts_are_one_buffer(suite: &Suite) -> Result<(), String> {
    let mut bench = suite.bench()?;
    let (block, largest) = (block(&bench), largest(&bench));
    for parts in [2, 7, 64, 65, DiskInfo::MIN_SEGMENTS as u64] {
        let len = (4 * block).max(parts.next_multiple_of(block)).min(largest);
        let parts = parts.min(len);
        let (first, second) = (noise(parts, len), noise(parts + 1000, len));
        let from = fill(bench.arena.guest(len, parts), &first);
        bench.succeed(write(block, from))?;
        same(&content(&mut bench, block, len)?, &first, block)?;
        bench.succeed(write(block, fill(host(len), &second)))?;
        let into = bench.arena.guest(len, parts);
        let into = read_into(&mut bench, block, into)?;
        same(&bytes(&into), &second, block)?;
    }
    Ok(())
}

fn operations_at_once_are_apart(suite: &Suite) -> Result<(), String> {
    let mut bench = suite.bench()?;
    let block = block(&bench);
    let len = |index: u64| (1 + index % 3) * block;
    let at = |index: u64| index * 3 * block;
    let writes = (0..64)
        .map(|index| {
            let buffer = if index % 2 == 0 { host(len(index)) } else { bench.arena.guest(len(index), 3) };
            write(at(index), fill(buffer, &noise(index, len(index))))
        })
        .collect();
    all(&mut bench, writes)?;
    let reads = (0..64).map(|index| {
        let buffer = if index % 2 == 1 { host(len(index)) } else { bench.arena.guest(len(index), 2) };
        read(at(index), buffer)
    });
    let reads = reads.collect();
    for (index, operation) in (0..).zip(all(&mut bench, reads)?) {
        let Operation::Read { into, .. } = operation else { return Err(other()) };
        same(&bytes(&into), &noise(index, len(index)), at(index))?;
    }
    Ok(())
}

fn zeroes_are_read_where_asked_for(suite: &Suite) -> Result<(), String> {
    let mut bench = suite.bench()?;
    if !bench.info().write_zeroes {
        return Ok(());
    }
    let block = block(&bench);
    let most = (largest(&bench).min(bench.info().max_range) / block).min(64);
    for (blocks, unmap, stable) in [(1, false, false), (most, false, true), (1, true, true), (most, true, false)] {
        let range = ByteRange { at: 3 * block, len: blocks * block };
        let mut expected = noise(blocks, range.len + 6 * block);
        put(&mut bench, 0, &expected)?;
        bench.succeed(Operation::WriteZeroes { range, unmap, stable })?;
        let (begin, end) = (range.at as usize, (range.at + range.len) as usize);
        expected[begin..end].fill(0);
        same(&content(&mut bench, 0, range.len + 6 * block)?, &expected, 0)?;
    }
    Ok(())
}

fn a_discard_spares_its_neighbours(suite: &Suite) -> Result<(), String> {
    let mut bench = suite.bench()?;
    if !bench.info().discard {
        return Ok(());
    }
    let block = block(&bench);
    let most = (bench.info().max_range / block).min(64);
    for blocks in [1, most] {
        let (len, behind) = (blocks * block, (3 + blocks) * block);
        let before = noise(blocks, 3 * block);
        put(&mut bench, 0, &before)?;
        put(&mut bench, behind, &before)?;
        bench.succeed(Operation::Discard(ByteRange { at: 3 * block, len }))?;
        same(&content(&mut bench, 0, 3 * block)?, &before, 0)?;
        same(&content(&mut bench, behind, 3 * block)?, &before, behind)?;
        // Whatever is there now, it can be read and written.
        content(&mut bench, 3 * block, len)?;
        put(&mut bench, 3 * block, &before[..block as usize])?;
        same(&content(&mut bench, 3 * block, block)?, &before[..block as usize], 3 * block)?;
    }
    Ok(())
}

fn no_call_blocks(suite: &Suite) -> Result<(), String> {
    let mut bench = suite.bench()?;
    let block = block(&bench);
    for index in 0..8 {
        let writes =
            (0..16).map(|part| Operation::Write { at: part * block, from: host(block), stable: index % 4 == 0 });
        all(&mut bench, writes.collect())?;
        bench.succeed(Operation::Flush)?;
        bench.succeed(read(0, host(block)))?;
    }
    match bench.longest() {
        (took, call) if took > LONGEST_CALL => Err(format!("`{call}` took {took:?}")),
        _ => Ok(()),
    }
}

pub(super) fn block(bench: &Bench) -> u64 {
    bench.info().block_size.into()
}

/// The largest transfer that is tried.
pub(super) fn largest(bench: &Bench) -> u64 {
    let info = bench.info();
    let most = info.max_transfer.min(512 << 10).min(info.capacity);
    most - most % u64::from(info.block_size)
}

pub(super) fn read(at: u64, into: Buffer) -> Operation {
    Operation::Read { at, into }
}

pub(super) fn write(at: u64, from: Buffer) -> Operation {
    Operation::Write { at, from, stable: false }
}

/// Carries out operations at once, which must succeed.
pub(super) fn all(bench: &mut Bench, operations: Vec<Operation>) -> Result<Vec<Operation>, String> {
    bench.begin(operations)?;
    let finished = bench.finish()?.into_iter();
    finished.map(|finished| finished.result.map(|()| finished.operation).map_err(|error| error.to_string())).collect()
}

fn read_into(bench: &mut Bench, at: u64, into: Buffer) -> Result<Buffer, String> {
    match bench.succeed(read(at, into))? {
        Operation::Read { into, .. } => Ok(into),
        _ => Err(other()),
    }
}

/// Writes bytes, in transfers as large as may be.
pub(super) fn put(bench: &mut Bench, at: u64, data: &[u8]) -> Result<(), String> {
    let largest = largest(bench);
    for (at, part) in (at..).step_by(largest as usize).zip(data.chunks(largest as usize)) {
        bench.succeed(write(at, fill(host(part.len() as u64), part)))?;
    }
    Ok(())
}

/// Reads bytes, in transfers as large as may be.
pub(super) fn content(bench: &mut Bench, at: u64, len: u64) -> Result<Vec<u8>, String> {
    let (mut data, largest) = (Vec::new(), largest(bench));
    while (data.len() as u64) < len {
        let done = data.len() as u64;
        let into = read_into(bench, at + done, host(largest.min(len - done)))?;
        data.extend(bytes(&into));
    }
    Ok(data)
}

pub(super) fn same(found: &[u8], expected: &[u8], at: u64) -> Result<(), String> {
    if found == expected {
        return Ok(());
    }
    match found.iter().zip(expected).position(|(found, expected)| found != expected) {
        Some(wrong) => Err(format!(
            "byte {} of the disk should be {:#x}, and {:#x} was read",
            at + wrong as u64,
            expected[wrong],
            found[wrong]
        )),
        None => Err(format!("{} bytes were read, of {}", found.len(), expected.len())),
    }
}

fn other() -> String {
    "another operation came back".to_owned()
}
