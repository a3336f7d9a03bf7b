//! What may happen to a backend: no room, a driver that goes away, another thread, errors, another size, a loss of power.

use std::time::{Duration, Instant};

use super::bench::Bench;
use super::data::{fill, host, noise};
use super::promises::{all, block, content, largest, put, read, same, write};
use super::suite::{Rule, Suite};
use crate::block::{ByteRange, Operation};
use crate::testing::IoRig;

pub(super) const RULES: &[Rule] = &[
    ("more than it has room for is taken later", more_than_it_has_room_for_is_taken_later),
    ("it works on a thread that lends no buffers", it_works_without_lent_buffers),
    ("all that is cancelled is completed, and the next operation works", all_that_is_cancelled_is_completed),
    ("it goes on after a move to another thread", it_goes_on_after_a_move),
    ("events of others do nothing", events_of_others_do_nothing),
    ("a backend that is dropped lets go of its buffers", a_dropped_backend_lets_go),
    ("an error is reported, and the next operation works", an_error_is_reported),
    ("another size is seen when it is refreshed", another_size_is_seen),
    ("what was made stable survives a loss of power", what_was_made_stable_survives),
];

fn more_than_it_has_room_for_is_taken_later(suite: &Suite) -> Result<(), String> {
    let mut bench = suite.bench()?;
    let block = block(&bench);
    let at = |index: u64| index % 512 * block;
    for index in 0..512 {
        put(&mut bench, at(index), &noise(index, block))?;
    }
    let reads = (0..2000).map(|index| read(at(index), bench.arena.guest(block, 1)));
    let reads = reads.collect();
    for (index, operation) in (0..).zip(all(&mut bench, reads)?) {
        let Operation::Read { into, .. } = operation else { return Err("another operation came back".to_owned()) };
        same(&super::data::bytes(&into), &noise(index % 512, block), at(index))?;
    }
    Ok(())
}

fn it_works_without_lent_buffers(suite: &Suite) -> Result<(), String> {
    let mut bench = suite.bench_without_pool()?;
    works(&mut bench, 7)?;
    let (block, largest) = (block(&bench), largest(&bench));
    let writes = (0..8).map(|index| write(index * block, fill(host(block), &noise(index, block)))).collect();
    all(&mut bench, writes)?;
    for index in 0..8 {
        same(&content(&mut bench, index * block, block)?, &noise(index, block), index * block)?;
    }
    if !bench.info().write_zeroes {
        return Ok(());
    }
    let len = bench.info().max_range.min(largest);
    bench.succeed(Operation::WriteZeroes { range: ByteRange { at: 0, len }, unmap: false, stable: false })?;
    same(&content(&mut bench, 0, len)?, &vec![0; len as usize], 0)
}

fn all_that_is_cancelled_is_completed(suite: &Suite) -> Result<(), String> {
    let mut bench = suite.bench()?;
    let block = block(&bench);
    for round in 0..5 {
        let mut operations = Vec::new();
        for index in 0..32 {
            let data = noise(round, block);
            let from = fill(bench.arena.guest(block, 1), &data);
            operations.push(Operation::Write { at: index * block, from, stable: true });
            operations.push(read(index * block, bench.arena.guest(block, 1)));
        }
        bench.begin(operations)?;
        bench.cancel();
        // Each may have been done or not; all come back.
        bench.finish()?;
        bench.cancel();
        works(&mut bench, round)?;
    }
    Ok(())
}

fn it_goes_on_after_a_move(suite: &Suite) -> Result<(), String> {
    let mut bench = suite.bench()?;
    works(&mut bench, 1)?;
    let past = bench.move_to(IoRig::new())?;
    works(&mut bench, 2)?;
    drop(past);
    bench.move_to(IoRig::new())?;
    works(&mut bench, 3)
}

fn events_of_others_do_nothing(suite: &Suite) -> Result<(), String> {
    let mut bench = suite.bench()?;
    bench.mislead()?;
    works(&mut bench, 1)?;
    let block = block(&bench);
    bench.begin((0..8).map(|index| read(index * block, host(block))).collect())?;
    bench.mislead()?;
    bench.finish()?;
    works(&mut bench, 2)
}

fn a_dropped_backend_lets_go(suite: &Suite) -> Result<(), String> {
    let mut bench = suite.bench()?;
    let block = block(&bench);
    let operations = (0..32).map(|index| {
        let from = bench.arena.guest(block, 1);
        Operation::Write { at: index * block, from, stable: true }
    });
    let operations = operations.collect();
    bench.begin(operations)?;
    let dropped = Instant::now();
    let arena = bench.into_arena();
    while arena.leases() > 0 {
        if dropped.elapsed() > suite.patience {
            return Err(format!("{} buffers of the guest are held after {:?}", arena.leases(), suite.patience));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

fn an_error_is_reported(suite: &Suite) -> Result<(), String> {
    let Some(failing) = &suite.failing else { return Ok(()) };
    let (backend, mut fail) = failing();
    let mut bench = suite.bench_on(backend)?;
    let block = block(&bench);
    let range = ByteRange { at: 0, len: block };
    let operations: [fn(u64, ByteRange) -> Operation; 5] = [
        |block, _| read(0, host(block)),
        |block, _| write(0, host(block)),
        |_, _| Operation::Flush,
        |block, _| Operation::Write { at: 0, from: host(block), stable: true },
        |_, range| Operation::WriteZeroes { range, unmap: false, stable: false },
    ];
    let count = if bench.info().write_zeroes { operations.len() } else { operations.len() - 1 };
    for operation in operations.into_iter().take(count) {
        fail();
        let operation = operation(block, range);
        let print = super::data::Print::of(&operation);
        if bench.run(operation)?.result.is_ok() {
            return Err(format!("a {print} was to fail, and succeeded"));
        }
        works(&mut bench, 1)?;
    }
    Ok(())
}

fn another_size_is_seen(suite: &Suite) -> Result<(), String> {
    let Some(growing) = &suite.growing else { return Ok(()) };
    let (backend, grow) = growing();
    let mut bench = suite.bench_on(backend)?;
    let before = bench.info();
    let capacity = grow();
    bench.refresh();
    let after = bench.info_of(capacity);
    if (after.capacity, after.block_size, after.max_transfer) != (capacity, before.block_size, before.max_transfer) {
        return Err(format!("it was {before:?}, should have {capacity} bytes now, and is {after:?}"));
    }
    let block = block(&bench);
    put(&mut bench, capacity - block, &noise(1, block))?;
    same(&content(&mut bench, capacity - block, block)?, &noise(1, block), capacity - block)
}

fn what_was_made_stable_survives(suite: &Suite) -> Result<(), String> {
    let Some(losing) = &suite.losing else { return Ok(()) };
    let (backend, lose_power) = losing();
    let mut bench = suite.bench_on(backend)?;
    let block = block(&bench);
    let at = |index: u64| index * block;
    // Flushed; stable by themselves; zeroes that are; and others that are not asked about.
    for index in 0..4 {
        put(&mut bench, at(index), &noise(index, block))?;
    }
    bench.succeed(Operation::Flush)?;
    put(&mut bench, at(8), &noise(8, block))?;
    bench.succeed(Operation::Write { at: at(4), from: fill(host(block), &noise(4, block)), stable: true })?;
    let range = ByteRange { at: at(3), len: block };
    let zeroes = bench.info().write_zeroes;
    if zeroes {
        bench.succeed(Operation::WriteZeroes { range, unmap: false, stable: true })?;
    }
    drop(bench);
    let mut bench = suite.bench_on(lose_power())?;
    for index in [0, 1, 2, 4] {
        same(&content(&mut bench, at(index), block)?, &noise(index, block), at(index))?;
    }
    let expected = if zeroes { vec![0; block as usize] } else { noise(3, block) };
    same(&content(&mut bench, at(3), block)?, &expected, at(3))
}

/// Writes something and reads it back.
fn works(bench: &mut Bench, seed: u64) -> Result<(), String> {
    let len = largest(bench).min(8 * block(bench));
    put(bench, 0, &noise(seed, len))?;
    bench.succeed(Operation::Flush)?;
    same(&content(bench, 0, len)?, &noise(seed, len), 0)
}
