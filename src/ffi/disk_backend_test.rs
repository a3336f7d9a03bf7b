//! What a backend in C may do, right and wrong, under a device with a driver in front.

#[path = "disk_store_test.rs"]
mod store;
#[path = "disk_suite_test.rs"]
mod suite;

use std::ptr::{null, null_mut};
use std::sync::atomic::Ordering;
use std::thread;

use super::super::disk::{vmcell_disk_free, vmcell_disk_set_never_blocks};
use super::super::disk_handle::*;
use super::super::disk_operation::*;
use super::super::disk_port::*;
use super::super::failure::*;
use super::super::slot::hand_over;
use super::*;
use crate::block::ByteRange;
use crate::memory::{Buffer as Data, GuestAddress, HostBuffer};
use crate::testing::{DriverQueue, IoRig};
use crate::virtio::spec::mmio;
use store::*;

#[test]
fn each_kind_of_operation_reaches_the_table_and_does_its_work() {
    let store = Store::new(AT_ONCE);
    let mut rig = rig(store.disk());
    assert_eq!(rig.run(1, 3, &[7; 1024]), 0);
    assert_eq!(store.bytes.lock().unwrap()[3 * 512..5 * 512], [7; 1024]);
    assert_eq!(rig.run(0, 4, &[0; 1024]), 0);
    assert_eq!(rig.bytes(DATA + 4096, 1024), [[7; 512], [0x11; 512]].concat());
    assert_eq!(rig.run(4, 0, &[]), 0);
    assert_eq!(rig.run(11, 0, &range(8, 4)), 0);
    assert_eq!(rig.run(13, 0, &range(3, 2)), 0);
    assert_eq!(store.bytes.lock().unwrap()[3 * 512..5 * 512], [0; 1024]);
    let seen: Vec<_> = store.seen.lock().unwrap().iter().map(|seen| (seen.1, seen.3, seen.4)).collect();
    let expected = [
        (VMCELL_DISK_WRITE, 3 * 512, 1024),
        (VMCELL_DISK_READ, 4 * 512, 1024),
        (VMCELL_DISK_FLUSH, 0, 0),
        (VMCELL_DISK_DISCARD, 8 * 512, 4 * 512),
        (VMCELL_DISK_WRITE_ZEROES, 3 * 512, 1024),
    ];
    assert_eq!(seen, expected);
    assert_eq!(store.commits.load(Ordering::SeqCst), 5);
}

#[test]
fn operations_that_another_thread_completes_in_reverse_answer_their_own_requests() {
    let store = Store::new(HOLD);
    let mut rig = rig(store.disk());
    let sent: Vec<u64> = (1..=8).map(|sector| rig.send(1, sector, &[sector as u8; 512])).collect();
    rig.wait_for("all operations", || store.count() == sent.len());
    for number in sent.iter().rev() {
        store.finish(*number as usize);
        assert_eq!(rig.driver.wait_used(&mut rig.queue).0, *number as u32 * 3);
        assert_eq!(rig.status(*number), 0);
    }
    let bytes = store.bytes.lock().unwrap();
    assert!((1..=8).all(|sector| bytes[sector * 512..][..512] == [sector as u8; 512]));
}

#[test]
fn an_operation_refused_as_full_is_offered_again_after_a_completion() {
    let store = Store::new(HOLD);
    let mut rig = rig(store.disk());
    rig.send(1, 1, &[1; 512]);
    rig.wait_for("the first operation", || store.count() == 1);
    store.answer.store(VMCELL_FULL, Ordering::SeqCst);
    let second = rig.send(1, 2, &[2; 512]);
    rig.wait_for("the second operation", || store.count() == 2);
    store.answer.store(AT_ONCE, Ordering::SeqCst);
    store.finish(0);
    rig.driver.wait_used(&mut rig.queue);
    rig.driver.wait_used(&mut rig.queue);
    assert_eq!((rig.status(0), rig.status(second), store.count()), (0, 0, 3));
    let seen = store.seen.lock().unwrap();
    assert!(seen[1].0 != seen[2].0 && (seen[1].3, seen[2].3) == (1024, 1024), "another tag, the same range");
}

#[test]
fn an_operation_refused_as_full_with_nothing_in_flight_is_offered_again_when_asked_for() {
    let store = Store::new(VMCELL_FULL);
    let mut rig = rig(store.disk());
    rig.send(1, 1, &[1; 512]);
    rig.wait_for("the operation", || store.count() == 1);
    store.answer.store(AT_ONCE, Ordering::SeqCst);
    // SAFETY: the place for an error is NULL.
    assert_eq!(unsafe { vmcell_disk_port_retry(store.port(), null_mut()) }, VMCELL_OK);
    rig.driver.wait_used(&mut rig.queue);
    assert_eq!((rig.status(0), store.count()), (0, 2));
}

#[test]
fn an_errno_and_any_number_without_a_meaning_fail_the_operation_alone() {
    let store = Store::new(AT_ONCE);
    let mut rig = rig(store.disk());
    for answer in [libc::ENOSPC, -1, -libc::EIO, 4096, i32::MIN] {
        store.answer.store(answer, Ordering::SeqCst);
        assert_eq!(rig.run(1, 1, &[1; 512]), 1, "{answer}");
    }
    store.answer.store(HOLD, Ordering::SeqCst);
    for status in [libc::EIO, -1, i32::MAX] {
        let number = rig.send(1, 1, &[1; 512]);
        rig.wait_for("the operation", || !store.held.lock().unwrap().is_empty());
        let address = store.held.lock().unwrap().remove(0);
        assert_eq!(complete(store.port(), operation_at(address).tag, status), VMCELL_OK);
        rig.driver.wait_used(&mut rig.queue);
        assert_eq!(rig.status(number), 1, "{status}");
    }
    store.answer.store(AT_ONCE, Ordering::SeqCst);
    assert_eq!(rig.run(1, 1, &[9; 512]), 0);
}

#[test]
fn completing_twice_or_what_was_never_given_is_refused_and_harms_nothing() {
    let (store, other) = (Store::new(HOLD), Store::new(HOLD));
    let (mut rig, mut neighbour) = (rig(store.disk()), rig(other.disk()));
    rig.send(1, 1, &[1; 512]);
    neighbour.send(1, 1, &[1; 512]);
    rig.wait_for("both operations", || store.count() == 1 && other.count() == 1);
    let (tag, others) = (store.seen.lock().unwrap()[0].0, other.seen.lock().unwrap()[0].0);
    for wrong in [0, 1, u64::MAX, tag ^ 1, tag ^ 1 << 32, others] {
        assert_eq!(complete(store.port(), wrong, 0), VMCELL_ERROR_BAD_VALUE, "{wrong:#x}");
    }
    store.finish(0);
    assert_eq!(complete(store.port(), tag, 0), VMCELL_ERROR_BAD_VALUE, "it was completed before");
    rig.driver.wait_used(&mut rig.queue);
    // The place is used again, under another tag.
    store.answer.store(AT_ONCE, Ordering::SeqCst);
    assert_eq!(rig.run(1, 2, &[2; 512]), 0);
    assert_eq!(complete(store.port(), tag, 0), VMCELL_ERROR_BAD_VALUE);
    assert_eq!(rig.run(0, 2, &[0; 512]), 0);
    other.finish(0);
    neighbour.driver.wait_used(&mut neighbour.queue);
}

#[test]
fn what_is_completed_when_the_disk_is_gone_is_refused_and_destroy_comes_once_and_last() {
    let store = Store::new(HOLD);
    let mut rig = rig(store.disk());
    rig.send(1, 1, &[1; 512]);
    rig.wait_for("the operation", || store.count() == 1);
    let tag = store.seen.lock().unwrap()[0].0;
    assert_eq!(store.destroyed(), 0);
    drop(rig);
    assert_eq!(store.destroyed(), 1);
    assert_eq!(
        store.bytes.lock().unwrap()[512..1024],
        [1; 512],
        "what is in flight is valid until destroy has returned"
    );
    assert_eq!(complete(store.port(), tag, 0), VMCELL_ERROR_BAD_HANDLE);
    // SAFETY: the place for an error is NULL.
    assert_eq!(unsafe { vmcell_disk_port_retry(store.port(), null_mut()) }, VMCELL_ERROR_BAD_HANDLE);
    assert_eq!(store.destroyed(), 1);
}

#[test]
fn threads_that_complete_while_the_disk_goes_are_answered_or_refused() {
    let store = Store::new(HOLD);
    let mut rig = rig(store.disk());
    (1..=8).for_each(|sector| _ = rig.send(1, sector, &[1; 512]));
    rig.wait_for("all operations", || store.count() == 8);
    store.held.lock().unwrap().clear();
    let tags: Vec<u64> = store.seen.lock().unwrap().iter().map(|seen| seen.0).collect();
    thread::scope(|scope| {
        for tag in tags {
            scope.spawn(move || {
                let answer = complete(store.port(), tag, 0);
                assert!([VMCELL_OK, VMCELL_ERROR_BAD_HANDLE, VMCELL_ERROR_BAD_VALUE].contains(&answer), "{answer}");
            });
        }
        drop(rig);
    });
    assert_eq!(store.destroyed(), 1);
}

/// Finishes the first operation that is held when it is dropped, also if the test fails before.
struct Finishes(&'static Store);

impl Drop for Finishes {
    fn drop(&mut self) {
        self.0.finish(0);
    }
}

#[test]
fn a_reset_cancels_and_waits_for_what_is_in_flight() {
    let store = Store::new(HOLD);
    let mut rig = rig(store.disk());
    rig.send(1, 1, &[1; 512]);
    rig.wait_for("the operation", || store.count() == 1);
    thread::scope(|scope| {
        // A failure must end the reset as well: the scope waits for it.
        let finishes = Finishes(store);
        let resetting = scope.spawn(|| rig.driver.write(mmio::STATUS, 0));
        rig.wait_for("the cancel", || store.cancels.load(Ordering::SeqCst) >= 1);
        assert!(!resetting.is_finished(), "the operation still has its buffer");
        drop(finishes);
        resetting.join().unwrap();
    });
    rig.queue = DriverQueue::new(&rig.memory, GuestAddress(0x1000), 64);
    rig.driver.bring_up(FEATURES, &[&rig.queue]);
    store.answer.store(AT_ONCE, Ordering::SeqCst);
    assert_eq!(rig.run(1, 2, &[2; 512]), 0);
}

#[test]
fn a_new_capacity_from_any_thread_and_by_refresh_reaches_the_driver() {
    let store = Store::new(AT_ONCE);
    let disk = store.disk();
    let mut handle = null_mut();
    // SAFETY: the places are places or NULL.
    assert_eq!(unsafe { vmcell_disk_handle_new(disk, &raw mut handle, null_mut()) }, VMCELL_OK);
    // SAFETY: as above.
    let set = |capacity| unsafe { vmcell_disk_port_set_capacity(store.port(), capacity, null_mut()) };
    assert_eq!((set(0), set(513)), (VMCELL_ERROR_BAD_VALUE, VMCELL_ERROR_BAD_VALUE));
    assert_eq!(set(8 * 512), VMCELL_OK, "before there is a device");
    let mut rig = rig(disk);
    assert_eq!(rig.capacity(), 8 * 512);
    assert_eq!(set(16 * 512), VMCELL_OK);
    rig.wait_for("the new capacity", || rig.capacity() == 16 * 512);
    assert_eq!(rig.run(1, 16, &[1; 512]), 1, "behind the end");
    store.bytes.lock().unwrap().resize(2 * CAPACITY, 0);
    // SAFETY: as above.
    assert_eq!(unsafe { vmcell_disk_handle_refresh(handle, null_mut()) }, VMCELL_OK);
    rig.wait_for("the refreshed capacity", || rig.capacity() == 2 * CAPACITY as u64);
    assert_eq!((store.refreshes.load(Ordering::SeqCst), rig.run(1, 127, &[1; 512])), (1, 0));
    assert_eq!(vmcell_disk_handle_free(handle), VMCELL_OK);
}

#[test]
fn a_backend_that_is_replaced_is_destroyed_and_the_next_one_goes_on() {
    let (store, next) = (Store::new(AT_ONCE), Store::new(AT_ONCE));
    let disk = store.disk();
    let mut handle = null_mut();
    // SAFETY: the places are places or NULL.
    assert_eq!(unsafe { vmcell_disk_handle_new(disk, &raw mut handle, null_mut()) }, VMCELL_OK);
    // SAFETY: as above.
    let replace = |by: *mut DiskObject, limit| unsafe { vmcell_disk_handle_replace(handle, by, limit, null_mut()) };
    assert_eq!(replace(next.disk(), 1), VMCELL_ERROR_TIMEOUT, "there is no VM yet");
    let mut rig = rig(disk);
    rig.wait_for("the end of the one that came too early", || next.destroyed() == 1);
    assert_eq!(rig.run(1, 1, &[1; 512]), 0);
    assert_eq!(replace(next.disk(), 10_000), VMCELL_OK);
    assert_eq!((store.destroyed(), next.destroyed()), (1, 1));
    assert_eq!(rig.run(1, 2, &[2; 512]), 0);
    assert_eq!((store.count(), next.count()), (1, 1));
    drop(rig);
    assert_eq!(replace(next.disk(), 10_000), VMCELL_ERROR_INVALID_STATE);
    assert_eq!((store.destroyed(), next.destroyed()), (1, 3));
    assert_eq!(vmcell_disk_handle_free(handle), VMCELL_OK);
}

#[test]
fn memory_of_a_layer_above_appears_as_one_part() {
    let store = Store::new(AT_ONCE);
    let (mut rig, table) = (IoRig::new(), store.table());
    let user = User { user: table.user, release: table.destroy };
    let mut backend = TableBackend::new(table, traits().info().unwrap(), user).unwrap();
    store.port.store(backend.port.registered.handle().addr(), Ordering::SeqCst);
    backend.attach(&mut rig.turn()).unwrap();
    for round in 0..3u64 {
        let mut from = HostBuffer::new(1024);
        from.fill(round as u8);
        let write = Operation::Write { at: round * 1024, from: Data::Host(from), stable: true };
        let tag = Tag::from_bits(round);
        backend.submit(&mut rig.turn(), tag, write).unwrap();
        let done = backend.completed(&mut rig.turn()).unwrap();
        assert!(done.tag == tag && done.result.is_ok());
        assert_eq!(store.bytes.lock().unwrap()[round as usize * 1024..][..1024], [round as u8; 1024]);
    }
    let range = ByteRange { at: 0, len: 512 };
    let zeroes = Operation::WriteZeroes { range, unmap: true, stable: true };
    backend.submit(&mut rig.turn(), Tag::from_bits(9), zeroes).unwrap();
    assert!(backend.completed(&mut rig.turn()).is_some() && backend.completed(&mut rig.turn()).is_none());
    let flags: Vec<u32> = store.seen.lock().unwrap().iter().map(|seen| seen.2).collect();
    let stable = VMCELL_DISK_STABLE;
    assert_eq!(flags, [stable, stable, stable, stable | VMCELL_DISK_UNMAP]);
}

#[test]
fn what_is_zero_has_the_default_that_the_header_tells() {
    let info = traits().info().unwrap();
    assert_eq!(info, DiskInfo::new(CAPACITY as u64));
    let found = (info.block_size, info.max_transfer, info.max_range, info.max_segments);
    assert_eq!(found, (512, 131_072, 67_108_864, 512));
    assert!(info.discard && info.write_zeroes);
}

#[test]
fn what_a_backend_does_not_take_is_told_by_flags() {
    for (flags, discard, write_zeroes) in [
        (VMCELL_DISK_NO_DISCARD, false, true),
        (VMCELL_DISK_NO_WRITE_ZEROES, true, false),
        (VMCELL_DISK_NO_DISCARD | VMCELL_DISK_NO_WRITE_ZEROES, false, false),
    ] {
        let info = DiskTraits { flags, ..traits() }.info().unwrap();
        assert_eq!((info.discard, info.write_zeroes), (discard, write_zeroes));
    }
}

#[test]
fn more_operations_than_there_is_room_for_are_given_back() {
    let flights = Flights::new(&traits().info().unwrap());
    let begin = |bits| flights.begin(Tag::from_bits(bits), Operation::Flush, Arc::new(Described::new()));
    let begun: Vec<_> = (0..256).map(|bits| begin(bits).unwrap()).collect();
    assert!(matches!(begin(256), Err(Operation::Flush)));
    assert!(flights.complete(begun[7].seen.tag, 0) && begin(256).is_ok());
}

#[test]
fn tables_of_another_size_are_read_as_documented() {
    let store = Store::new(AT_ONCE);
    let (mut disk, mut port) = (null_mut(), null_mut());
    #[repr(C)]
    struct Longer {
        table: DiskTable,
        more: [usize; 2],
    }
    let mut table = store.table();
    for size in [0, 8, 16, 25, 49, 57, 4104, usize::MAX] {
        table.struct_size = size;
        assert_eq!(new_disk(&table, &traits(), &mut disk, &mut port), VMCELL_ERROR_BAD_VALUE, "{size}");
    }
    assert!(disk.is_null() && port.is_null() && store.destroyed() == 0, "a table that is refused takes nothing");
    let mut longer = Longer { table: store.table(), more: [0, 1] };
    longer.table.struct_size = size_of::<Longer>();
    assert_eq!(new_disk(&longer.table, &traits(), &mut disk, &mut port), VMCELL_ERROR_BAD_VALUE);
    longer.more = [0, 0];
    assert_eq!(new_disk(&longer.table, &traits(), &mut disk, &mut port), VMCELL_OK);
    assert_eq!((vmcell_disk_free(disk), store.destroyed()), (VMCELL_OK, 1));
    // One that ends behind `submit` has neither `commit` nor `destroy`.
    table.struct_size = offset_of!(DiskTable, commit);
    assert_eq!(new_disk(&table, &traits(), &mut disk, &mut port), VMCELL_OK);
    store.port.store(port.addr(), Ordering::SeqCst);
    let mut rig = rig(disk);
    assert_eq!(rig.run(1, 1, &[1; 512]), 0);
    drop(rig);
    assert_eq!((store.commits.load(Ordering::SeqCst), store.destroyed()), (0, 1));
}

#[test]
fn a_call_that_fails_destroys_what_it_was_given() {
    let store = Store::new(AT_ONCE);
    let (mut disk, mut port) = (null_mut(), null_mut());
    let mut table = store.table();
    table.submit = None;
    assert_eq!(new_disk(&table, &traits(), &mut disk, &mut port), VMCELL_ERROR_NULL_ARGUMENT);
    let bad = |change: fn(&mut DiskTraits)| {
        let mut bad = traits();
        change(&mut bad);
        bad
    };
    let refused = [
        (bad(|info| info.struct_size = 32), VMCELL_ERROR_BAD_VALUE),
        (bad(|info| info.capacity = 0), VMCELL_ERROR_DISK),
        (bad(|info| info.capacity = 511), VMCELL_ERROR_DISK),
        (bad(|info| info.block_size = 8192), VMCELL_ERROR_DISK),
        (bad(|info| info.max_transfer = 100), VMCELL_ERROR_DISK),
        (bad(|info| info.max_segments = 1), VMCELL_ERROR_DISK),
        (bad(|info| info.flags = 4), VMCELL_ERROR_BAD_VALUE),
    ];
    for (info, number) in &refused {
        assert_eq!(new_disk(&store.table(), info, &mut disk, &mut port), *number);
    }
    // SAFETY: each pointer is NULL or leads to a structure with its size in front.
    let (no_info, no_place) = unsafe {
        let (table, info) = (store.table(), traits());
        let no_info = vmcell_disk_new_backend(&raw const table, null(), &raw mut disk, null_mut(), null_mut());
        let table = store.table();
        (no_info, vmcell_disk_new_backend(&raw const table, &raw const info, null_mut(), null_mut(), null_mut()))
    };
    assert_eq!((no_info, no_place), (VMCELL_ERROR_NULL_ARGUMENT, VMCELL_ERROR_NULL_ARGUMENT));
    assert_eq!(store.destroyed(), 10);
    assert!(disk.is_null() && port.is_null());
}

#[test]
fn a_backend_that_never_blocks_may_share_a_thread() {
    let store = Store::new(AT_ONCE);
    let disk = store.disk();
    // SAFETY: the place for an error is NULL.
    assert_eq!(unsafe { vmcell_disk_set_never_blocks(disk, null_mut()) }, VMCELL_OK);
    assert!(matches!(hand_over(disk).unwrap().placement(), crate::event::Placement::Shared));
    assert!(matches!(hand_over(store.disk()).unwrap().placement(), crate::event::Placement::Alone));
    assert_eq!(store.destroyed(), 2);
}
