//! What the helper tells, and when.

use std::fs::File;

use super::*;
use crate::memory::{Buffer, HostBuffer};
use crate::testing::IoRig;
use crate::testing::dead_storage::DeadStorage;

fn read(tag: u64, at: u64) -> Task {
    Task::Carry(Tag::from_bits(tag), Operation::Read { at, into: Buffer::Host(HostBuffer::new(512)) })
}

fn flush(tag: u64) -> Task {
    Task::Carry(Tag::from_bits(tag), Operation::Flush)
}

fn helper(file: File, rig: &mut IoRig) -> Helper {
    let token = rig.turn().token();
    Helper::new(Arc::new(DiskFile::new(file)), rig.turn().waker(token))
}

#[test]
fn what_is_done_is_told_before_a_read_that_storage_does_not_answer() {
    let Some(storage) = DeadStorage::mount() else { return };
    let mut rig = IoRig::new();
    let mut helper = helper(File::open(storage.path()).unwrap(), &mut rig);
    // The first of them fails at once.
    for task in [read(1, 1 << 63), read(2, 0)] {
        assert!(helper.begin(task).is_ok());
    }
    helper.rouse();
    let events = rig.wait(Duration::from_secs(10), |_| ()).unwrap();
    assert_eq!(events.len(), 1, "it was told");
    assert!(matches!(helper.take_answer(), Some(Answer::Done(done)) if done.tag == Tag::from_bits(1)));
    assert!(helper.take_answer().is_none());
    drop(storage);
}

#[test]
fn flushes_that_wait_are_made_one() {
    let mut rig = IoRig::new();
    let helper = helper(tempfile::tempfile().unwrap(), &mut rig);
    helper.shared.state().todo.extend([flush(1), read(2, 0), flush(3), flush(4), read(5, 0)]);
    let mut flushes = Vec::new();
    let first = helper.shared.next(&mut flushes).unwrap();
    assert!(matches!(first, Task::Carry(tag, Operation::Flush) if tag == Tag::from_bits(1)));
    assert_eq!(flushes, [3, 4].map(Tag::from_bits));
    for expected in [2, 5].map(Tag::from_bits) {
        let next = helper.shared.next(&mut flushes).unwrap();
        assert!(matches!(next, Task::Carry(tag, Operation::Read { .. }) if tag == expected));
    }
    assert_eq!(flushes.len(), 2);
}

#[test]
fn all_flushes_of_one_end_like_it() {
    let of = |result| Answer::Done(Done::new(Tag::from_bits(1), Operation::Flush, result));
    let Answer::Done(done) = also(Tag::from_bits(2), &of(Err(io::Error::from_raw_os_error(libc::EIO)))) else {
        panic!()
    };
    assert_eq!((done.tag, done.result.unwrap_err().raw_os_error()), (Tag::from_bits(2), Some(libc::EIO)));
    assert!(matches!(also(Tag::from_bits(2), &of(Ok(()))), Answer::Done(done) if done.result.is_ok()));
}
