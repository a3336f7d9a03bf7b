//! A queue against drivers that keep the rules, and against those that don't.

use super::*;
use crate::memory::GuestAddress;
use crate::testing::{Buffer, DriverQueue, IoRig, RecordingInterrupt, is_untouched, patterned_memory};
use crate::virtio::Segment;
use crate::virtio::spec::ring;

const MEMORY: u64 = 1 << 20;
const BUFFER: u64 = 0x10000;
const TABLE: u64 = 0x20000;
const SIZE: u16 = 16;

struct Rig {
    memory: GuestMemory,
    driver: DriverQueue,
    queue: Queue,
    interrupt: Arc<RecordingInterrupt>,
}

fn rig_with(event_idx: bool) -> Rig {
    let memory = patterned_memory(MEMORY);
    let driver = DriverQueue::new(&memory, GuestAddress(0x1000), SIZE);
    let interrupt = RecordingInterrupt::new();
    let queue = Queue::new(&driver.config(), &memory, 0, event_idx, interrupt.clone()).unwrap();
    Rig { memory, driver, queue, interrupt }
}

fn rig() -> Rig {
    rig_with(true)
}

impl Rig {
    fn pop(&mut self) -> Option<Chain> {
        self.try_pop().unwrap()
    }

    fn try_pop(&mut self) -> Result<Option<Chain>> {
        self.queue.pop(&mut IoRig::new().turn())
    }

    /// Takes the next chain, and gives it back.
    fn serve(&mut self, written: u32) {
        let chain = self.pop().expect("a chain is there");
        self.queue.complete(chain, written);
    }

    /// The device must see nothing of what the driver did, and the next request must be served.
    fn assert_malformed(mut self, name: &str, head: u16) {
        let chain = self.pop().expect(name);
        assert!(chain.readable().is_empty() && chain.writable().is_empty(), "{name}");
        assert!(chain.write(0, &[1]).is_err() && chain.read(0, &mut [0]).is_err(), "{name}");
        // However many bytes the device believes to have written.
        self.queue.complete(chain, 4);
        assert_eq!(self.driver.take_used(), Some((head.into(), 0)), "{name}");
        let head = self.driver.offer(&[Buffer::writable(BUFFER, 4)]);
        self.serve(4);
        assert_eq!(self.driver.take_used(), Some((head.into(), 4)));
        assert_eq!(self.driver.take_used(), None);
    }
}

fn segment(gpa: u64, len: u32) -> Segment {
    Segment { gpa: GuestAddress(gpa), len }
}

const NEXT: u16 = ring::DESCRIPTOR_NEXT;
const WRITE: u16 = ring::DESCRIPTOR_WRITE;
const INDIRECT: u16 = ring::DESCRIPTOR_INDIRECT;

#[test]
fn a_chain_has_its_segments_in_order() {
    let mut rig = rig();
    let buffers = [
        Buffer::readable(BUFFER, 3),
        Buffer::readable(BUFFER + 0x100, 5),
        Buffer::writable(BUFFER + 0x200, 7),
        Buffer::writable(BUFFER + 0x300, 9),
    ];
    rig.driver.offer(&buffers);
    rig.driver.offer_indirect(TABLE + 1, &buffers);
    for _ in 0..2 {
        let chain = rig.pop().unwrap();
        assert_eq!(chain.readable(), [segment(BUFFER, 3), segment(BUFFER + 0x100, 5)]);
        assert_eq!(chain.writable(), [segment(BUFFER + 0x200, 7), segment(BUFFER + 0x300, 9)]);
        assert_eq!((chain.readable_len(), chain.writable_len()), (8, 16));
    }
    assert!(rig.pop().is_none());
}

#[test]
fn reads_and_writes_cross_segments_and_stop_at_the_end() {
    let mut rig = rig();
    rig.memory.write(GuestAddress(BUFFER), b"abc").unwrap();
    rig.memory.write(GuestAddress(BUFFER + 0x100), b"defgh").unwrap();
    rig.driver.offer(&[
        Buffer::readable(BUFFER, 3),
        Buffer::readable(BUFFER + 0x100, 5),
        Buffer::writable(BUFFER + 0x200, 2),
        Buffer::writable(BUFFER + 0x300, 2),
    ]);
    let chain = rig.pop().unwrap();
    let mut bytes = [0; 4];
    chain.read(1, &mut bytes).unwrap();
    assert_eq!(&bytes, b"bcde");
    chain.write(1, b"XY").unwrap();
    let mut byte = [0; 1];
    rig.memory.read(GuestAddress(BUFFER + 0x201), &mut byte).unwrap();
    assert_eq!(&byte, b"X");
    rig.memory.read(GuestAddress(BUFFER + 0x300), &mut byte).unwrap();
    assert_eq!(&byte, b"Y");
    assert!(is_untouched(&rig.memory, BUFFER + 0x200, 1) && is_untouched(&rig.memory, BUFFER + 0x301, 8));
    assert!(chain.read(5, &mut bytes).is_err() && chain.read(u32::MAX, &mut bytes).is_err());
    assert!(chain.write(1, &bytes).is_err());
    assert_eq!(chain.readable_range(2, 2).collect::<Vec<_>>(), [segment(BUFFER + 2, 1), segment(BUFFER + 0x100, 1)]);
    assert_eq!(chain.writable_range(9, 9).count(), 0);
}

#[test]
fn chains_are_completed_once_in_any_order() {
    let mut rig = rig();
    let heads: Vec<u32> = (0..3).map(|_| rig.driver.offer(&[Buffer::writable(BUFFER, 4)]).into()).collect();
    let [first, second, third] = [rig.pop().unwrap(), rig.pop().unwrap(), rig.pop().unwrap()];
    rig.queue.complete(third, 3);
    std::thread::spawn(move || drop(first)).join().unwrap();
    rig.queue.complete(second, 2);
    assert!(rig.pop().is_none());
    let used: Vec<_> = std::iter::from_fn(|| rig.driver.take_used()).collect();
    assert_eq!(used, [(heads[2], 3), (heads[1], 2), (heads[0], 0)]);
    assert_eq!(rig.queue.in_flight(), 0);
}

#[test]
fn what_is_completed_later_is_seen_at_the_end_of_the_batch_in_order() {
    let mut rig = rig();
    let offer =
        |rig: &mut Rig, count: u32| (0..count).for_each(|_| _ = rig.driver.offer(&[Buffer::writable(BUFFER, 4)]));
    let serve = |rig: &mut Rig| {
        let chain = rig.pop().unwrap();
        rig.queue.complete_later(chain, 4);
        rig.driver.used_index()
    };
    offer(&mut rig, 1);
    assert_eq!(serve(&mut rig), 0);
    assert_eq!(rig.queue.in_flight(), 1, "the driver does not have it");
    assert!(rig.pop().is_none());
    assert_eq!((rig.driver.used_index(), rig.queue.in_flight()), (1, 0));
    offer(&mut rig, 2);
    assert_eq!(serve(&mut rig), 1);
    rig.serve(3);
    assert_eq!(rig.driver.used_index(), 3, "one that is completed at once takes those before it along");
    offer(&mut rig, 1);
    assert_eq!(serve(&mut rig), 3);
    rig.queue.notify();
    assert_eq!((rig.driver.used_index(), rig.queue.state().unwrap().next_used), (4, 4));
    let used: Vec<_> = std::iter::from_fn(|| rig.driver.take_used()).map(|(_, written)| written).collect();
    assert_eq!(used, [4, 4, 3, 4]);
}

#[test]
fn a_long_batch_is_shown_in_parts() {
    let memory = patterned_memory(MEMORY);
    let mut driver = DriverQueue::new(&memory, GuestAddress(0x1000), 256);
    let mut queue = Queue::new(&driver.config(), &memory, 0, true, RecordingInterrupt::new()).unwrap();
    let mut io = IoRig::new();
    (0..100).for_each(|_| _ = driver.offer(&[Buffer::writable(BUFFER, 4)]));
    let mut shown = Vec::new();
    while let Some(chain) = queue.pop(&mut io.turn()).unwrap() {
        queue.complete_later(chain, 4);
        shown.push(driver.used_index());
    }
    shown.dedup();
    assert_eq!((shown, driver.used_index()), (vec![0, 32, 64, 96], 100));
}

#[test]
fn a_halted_queue_holds_no_lease() {
    let mut rig = rig();
    rig.driver.offer(&[Buffer::writable(BUFFER, 4)]);
    rig.driver.offer(&[Buffer::writable(BUFFER, 4)]);
    let (first, second) = (rig.pop().unwrap(), rig.pop().unwrap());
    rig.queue.complete(first, 4);
    rig.queue.set_halted(true);
    assert_eq!(rig.queue.lessor().count(), 1, "that of the chain that is out");
    rig.queue.put_back(second).unwrap();
    assert!(rig.pop().is_none());
    assert_eq!(rig.queue.lessor().count(), 0);
}

#[test]
fn the_rings_wrap() {
    let mut rig = rig();
    for round in 0..200_000u32 {
        let head = rig.driver.offer(&[Buffer::writable(BUFFER, 4)]);
        rig.serve(round % 5);
        assert_eq!(rig.driver.take_used(), Some((head.into(), round % 5)));
    }
}

#[test]
fn a_chain_that_is_dropped_wakes_the_owner_of_its_queue() {
    let memory = patterned_memory(MEMORY);
    let mut driver = DriverQueue::new(&memory, GuestAddress(0x1000), 256);
    let mut io = IoRig::new();
    let waker = {
        let mut turn = io.turn();
        let token = turn.token();
        turn.waker(token)
    };
    let start = Start {
        lessor: Lessor::new(memory.clone()),
        index: 0,
        event_idx: true,
        interrupt: RecordingInterrupt::new(),
        waker: Some(waker),
        state: QueueState::default(),
    };
    let mut queue = Queue::start(&driver.config(), start).unwrap();
    (0..200).for_each(|_| _ = driver.offer(&[Buffer::writable(BUFFER, 4)]));
    let chains: Vec<_> = std::iter::from_fn(|| queue.pop(&mut io.turn()).unwrap()).collect();
    assert!(io.woken().is_empty());
    drop(chains);
    assert_eq!(io.woken().len(), 1);
    queue.notify();
    queue.set_halted(true);
    assert_eq!((driver.used_index(), queue.in_flight(), queue.lessor().count()), (200, 0, 0));
}

#[test]
fn a_halted_queue_gives_nothing_and_takes_completions() {
    let mut rig = rig();
    rig.driver.offer(&[Buffer::writable(BUFFER, 4)]);
    let first = rig.pop().unwrap();
    rig.driver.offer(&[Buffer::writable(BUFFER, 4)]);
    rig.queue.set_halted(true);
    assert!(rig.pop().is_none());
    rig.queue.complete(first, 4);
    assert_eq!(rig.driver.take_used(), Some((0, 4)));
    rig.queue.set_halted(false);
    assert!(rig.pop().is_some());
}

#[test]
fn a_chain_that_was_put_back_is_taken_again() {
    let mut rig = rig();
    let heads: Vec<_> = (0..3).map(|_| u32::from(rig.driver.offer(&[Buffer::writable(BUFFER, 4)]))).collect();
    rig.serve(1);
    let (second, third) = (rig.pop().unwrap(), rig.pop().unwrap());
    assert!(rig.queue.state().is_err(), "two are in flight");
    rig.queue.put_back(third).unwrap();
    rig.queue.put_back(second).unwrap();
    assert_eq!(rig.queue.state().unwrap(), QueueState { next_avail: 1, next_used: 1 });
    rig.serve(2);
    rig.serve(3);
    let used: Vec<_> = std::iter::from_fn(|| rig.driver.take_used()).collect();
    assert_eq!(used, [(heads[0], 1), (heads[1], 2), (heads[2], 3)]);
}

#[test]
fn another_queue_goes_on_from_the_state_of_one() {
    let mut rig = rig();
    (0..5).for_each(|_| _ = rig.driver.offer(&[Buffer::writable(BUFFER, 4)]));
    (0..3).for_each(|_| rig.serve(4));
    let start = Start {
        lessor: Lessor::new(rig.memory.clone()),
        index: 0,
        event_idx: true,
        interrupt: rig.interrupt.clone(),
        waker: None,
        state: rig.queue.state().unwrap(),
    };
    rig.queue = Queue::start(&rig.driver.config(), start).unwrap();
    (0..2).for_each(|_| rig.serve(4));
    assert!(rig.pop().is_none());
    assert_eq!(rig.driver.used_index(), 5);
}

#[test]
fn a_chain_of_another_queue_goes_back_where_it_came_from() {
    let (mut rig, mut other) = (rig(), rig());
    rig.driver.offer(&[Buffer::writable(BUFFER, 4)]);
    other.driver.offer(&[Buffer::writable(BUFFER, 4)]);
    let (mine, theirs) = (rig.pop().unwrap(), other.pop().unwrap());
    rig.queue.complete(theirs, 4);
    assert!(other.queue.put_back(mine).is_err());
    rig.queue.notify();
    other.queue.notify();
    assert_eq!((rig.driver.take_used(), other.driver.take_used()), (Some((0, 0)), Some((0, 0))));
}

#[test]
fn malformed_chains_are_answered_and_the_next_is_served() {
    type Make = fn(&DriverQueue);
    let cases: [(&str, Make); 19] = [
        ("a loop of one", |d| d.set_descriptor(0, BUFFER, 4, NEXT, 0)),
        ("a loop of two", |d| {
            d.set_descriptor(0, BUFFER, 4, NEXT, 1);
            d.set_descriptor(1, BUFFER, 4, NEXT, 0)
        }),
        ("a successor out of range", |d| d.set_descriptor(0, BUFFER, 4, NEXT, SIZE)),
        ("a successor far out of range", |d| d.set_descriptor(0, BUFFER, 4, NEXT, u16::MAX)),
        ("no bytes", |d| d.set_descriptor(0, BUFFER, 0, 0, 0)),
        ("no bytes, writable", |d| d.set_descriptor(0, BUFFER, 0, WRITE, 0)),
        ("past the end of RAM", |d| d.set_descriptor(0, MEMORY - 3, 4, 0, 0)),
        ("outside RAM", |d| d.set_descriptor(0, MEMORY, 1, 0, 0)),
        ("wraps", |d| d.set_descriptor(0, u64::MAX, 2, 0, 0)),
        ("4 GiB", |d| d.set_descriptor(0, 0, u32::MAX, WRITE, 0)),
        ("readable after writable", |d| {
            d.set_descriptor(0, BUFFER, 4, WRITE | NEXT, 1);
            d.set_descriptor(1, BUFFER, 4, 0, 0)
        }),
        ("an indirect table that is empty", |d| d.set_descriptor(0, TABLE, 0, INDIRECT, 0)),
        ("an indirect table of broken length", |d| d.set_descriptor(0, TABLE, 24, INDIRECT, 0)),
        ("an indirect table outside RAM", |d| d.set_descriptor(0, MEMORY, 16, INDIRECT, 0)),
        ("an indirect table that leaves RAM", |d| {
            d.write_descriptor(MEMORY - 16, BUFFER, 4, NEXT, 1);
            d.set_descriptor(0, MEMORY - 16, 32, INDIRECT, 0)
        }),
        ("an indirect table that is huge", |d| d.set_descriptor(0, TABLE, 0xffff_fff0, INDIRECT, 0)),
        ("a table in a table", |d| {
            d.write_descriptor(TABLE, TABLE + 0x100, 16, INDIRECT, 0);
            d.write_descriptor(TABLE + 0x100, BUFFER, 4, 0, 0);
            d.set_descriptor(0, TABLE, 16, INDIRECT, 0)
        }),
        ("a loop in a table", |d| {
            d.write_descriptor(TABLE, BUFFER, 4, NEXT, 1);
            d.write_descriptor(TABLE + 16, BUFFER, 4, NEXT, 0);
            d.set_descriptor(0, TABLE, 32, INDIRECT, 0)
        }),
        ("a table longer than the queue may be", |d| {
            for index in 0..64 {
                let flags = if index == 63 { 0 } else { NEXT };
                d.write_descriptor(TABLE + index * 16, BUFFER, 4, flags, index as u16 + 1);
            }
            d.set_descriptor(0, TABLE, 64 * 16, INDIRECT, 0)
        }),
    ];
    for (name, make) in cases {
        let mut rig = rig();
        make(&rig.driver);
        rig.driver.offer_head(0);
        rig.assert_malformed(name, 0);
    }
}

#[test]
fn many_large_buffers_are_malformed_once_they_reach_4_gib() {
    let memory = GuestMemory::anonymous(&[(GuestAddress(0), 1 << 30)]).unwrap();
    let driver = &mut DriverQueue::new(&memory, GuestAddress(0x1000), SIZE);
    let interrupt = RecordingInterrupt::new();
    let mut queue = Queue::new(&driver.config(), &memory, 0, true, interrupt).unwrap();
    let mut io = IoRig::new();
    let large = Buffer::writable(0, 1 << 30);
    driver.offer(&[large; 4]);
    let chain = queue.pop(&mut io.turn()).unwrap().unwrap();
    assert_eq!(chain.writable_len(), 0);
    queue.complete(chain, 0);
    assert_eq!(driver.take_used(), Some((0, 0)));
    driver.offer(&[large; 3]);
    assert_eq!(queue.pop(&mut io.turn()).unwrap().unwrap().writable_len(), 3 << 30);
}

#[test]
fn an_index_that_no_driver_can_reach_is_an_error_of_the_queue() {
    for jump in [SIZE + 1, 0x7fff, 0xffff] {
        let mut rig = rig();
        rig.driver.set_avail_index(jump);
        let error = rig.try_pop().map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Virtqueue);
        assert_eq!(rig.driver.used_index(), 0);
    }
}

#[test]
fn an_index_that_goes_back_is_an_error_of_the_queue() {
    let mut rig = rig();
    for _ in 0..3 {
        rig.driver.offer(&[Buffer::writable(BUFFER, 4)]);
        rig.serve(0);
    }
    rig.driver.set_avail_index(2);
    assert!(rig.try_pop().is_err());
}

#[test]
fn a_head_out_of_range_is_an_error_of_the_queue() {
    for head in [SIZE, u16::MAX] {
        let mut rig = rig();
        rig.driver.offer_head(head);
        assert!(rig.try_pop().is_err());
    }
}

#[test]
fn more_chains_in_flight_than_descriptors_are_an_error_of_the_queue() {
    let mut rig = rig();
    let mut chains = Vec::new();
    for _ in 0..SIZE {
        rig.driver.offer(&[Buffer::writable(BUFFER, 4)]);
        chains.push(rig.pop().unwrap());
    }
    rig.driver.offer(&[Buffer::writable(BUFFER, 4)]);
    assert!(rig.try_pop().is_err());
}

#[test]
fn a_flood_of_chains_ends_with_the_turn() {
    let memory = patterned_memory(MEMORY);
    let mut driver = DriverQueue::new(&memory, GuestAddress(0x1000), 1024);
    let mut queue = Queue::new(&driver.config(), &memory, 0, true, RecordingInterrupt::new()).unwrap();
    (0..1000).for_each(|_| _ = driver.offer(&[Buffer::writable(MEMORY, 4)]));
    let mut io = IoRig::new();
    let mut turns = 0;
    while driver.used_index() < 1000 {
        let mut turn = io.turn();
        while let Some(chain) = queue.pop(&mut turn).unwrap() {
            queue.complete(chain, 0);
        }
        assert!(turn.spent() || driver.used_index() == 1000);
        turns += 1;
    }
    assert!(turns > 1);
}

#[test]
fn what_was_taken_around_a_malformed_chain_is_put_back_with_it() {
    let mut rig = rig();
    let heads = [BUFFER, MEMORY, BUFFER].map(|gpa| u32::from(rig.driver.offer(&[Buffer::writable(gpa, 4)])));
    let chains = [rig.pop().unwrap(), rig.pop().unwrap(), rig.pop().unwrap()];
    for chain in chains.into_iter().rev() {
        rig.queue.put_back(chain).unwrap();
    }
    (0..3).for_each(|_| rig.serve(4));
    let used: Vec<_> = std::iter::from_fn(|| rig.driver.take_used()).collect();
    assert_eq!(used, [(heads[0], 4), (heads[1], 0), (heads[2], 4)]);
}

#[test]
fn several_chains_of_one_head_that_are_dropped_are_each_completed() {
    let mut rig = rig();
    for _ in 0..3 {
        rig.driver.set_descriptor(0, BUFFER, 4, WRITE, 0);
        rig.driver.offer_head(0);
    }
    let chains = [rig.pop().unwrap(), rig.pop().unwrap(), rig.pop().unwrap()];
    drop(chains);
    rig.queue.notify();
    assert_eq!((rig.driver.used_index(), rig.queue.in_flight()), (3, 0));
}

#[test]
fn without_event_idx_flags_say_who_wants_to_hear() {
    let mut rig = rig_with(false);
    assert_eq!(rig.driver.used_flags(), 0);
    rig.driver.offer(&[Buffer::writable(BUFFER, 4)]);
    rig.serve(0);
    assert_eq!(rig.driver.used_flags(), ring::USED_NO_NOTIFY, "while it works, the device looks by itself");
    assert!(!rig.queue.call_for_more(), "it has not looked in vain yet");
    assert!(rig.pop().is_none());
    assert_eq!(rig.driver.used_flags(), ring::USED_NO_NOTIFY);
    assert!(!rig.queue.find_more() && !rig.queue.call_for_more());
    assert_eq!(rig.driver.used_flags(), 0);
    rig.queue.notify();
    rig.queue.notify();
    assert_eq!(rig.interrupt.used_count(), 1, "one interrupt for what was completed, none for nothing");

    rig.driver.set_avail_flags(ring::AVAIL_NO_INTERRUPT);
    rig.driver.offer(&[Buffer::writable(BUFFER, 4)]);
    rig.serve(0);
    rig.queue.notify();
    assert_eq!(rig.interrupt.used_count(), 1);
}

#[test]
fn with_event_idx_indices_say_who_wants_to_hear() {
    let mut rig = rig();
    rig.driver.set_used_event(1);
    for expected in [0, 1, 1] {
        rig.driver.offer(&[Buffer::writable(BUFFER, 4)]);
        rig.serve(0);
        rig.queue.notify();
        assert_eq!(rig.interrupt.used_count(), expected);
    }
    assert!(rig.pop().is_none());
    assert_eq!(rig.driver.avail_event(), 0, "nobody rings for the next one: it is looked for");
    assert!(!rig.queue.find_more() && !rig.queue.call_for_more());
    assert_eq!(rig.driver.avail_event(), 3, "the device wants to hear of the fourth");
    rig.driver.offer(&[Buffer::writable(BUFFER, 4)]);
    assert!(rig.queue.find_more(), "one came, for which nobody rang");
    assert!(!rig.queue.find_more() && !rig.queue.call_for_more(), "the device was told, and looks when it can");
    rig.serve(0);
    assert!(rig.pop().is_none());
    rig.driver.offer(&[Buffer::writable(BUFFER, 4)]);
    assert!(rig.queue.call_for_more(), "one came just before the device was to be rung for");
    assert!(!rig.queue.find_more());
}

#[test]
fn chains_completed_together_are_one_step_of_the_index_and_pass_the_event() {
    let mut rig = rig();
    for _ in 0..3 {
        rig.driver.offer(&[Buffer::writable(BUFFER, 4)]);
    }
    // In the middle of what appears at once.
    rig.driver.set_used_event(1);
    let chains = [rig.pop().unwrap(), rig.pop().unwrap(), rig.pop().unwrap()];
    rig.queue.complete_together(chains.into_iter().zip([4, 3, 2]));
    rig.queue.notify();
    assert_eq!(rig.interrupt.used_count(), 1);
    let used: Vec<_> = std::iter::from_fn(|| rig.driver.take_used()).collect();
    assert_eq!(used, [(0, 4), (1, 3), (2, 2)]);
}

#[test]
fn configurations_that_no_queue_can_have_are_refused() {
    let memory = patterned_memory(MEMORY);
    let good = DriverQueue::new(&memory, GuestAddress(0x1000), SIZE).config();
    assert!(good.validate(&memory).is_ok());
    let refused = |change: &dyn Fn(&mut QueueConfig)| {
        let mut config = good;
        change(&mut config);
        assert_eq!(config.validate(&memory).unwrap_err().kind(), ErrorKind::Virtqueue, "{config:?}");
    };
    for size in [0, 3, 15, 17, 32, 0x8000, u16::MAX] {
        refused(&|config| config.size = size);
    }
    // Not set, not aligned, past the end, straddling the end, at the end of the address space.
    for gpa in [0, 0x1001, MEMORY, MEMORY - 16, MEMORY - 2, u64::MAX - 15, u64::MAX] {
        refused(&|config| config.desc_table = GuestAddress(gpa));
        refused(&|config| config.avail_ring = GuestAddress(gpa));
        refused(&|config| config.used_ring = GuestAddress(gpa));
    }
    refused(&|config| config.desc_table = GuestAddress(0x1008));
    refused(&|config| config.used_ring = GuestAddress(0x1002));
    let mut last = good;
    last.desc_table = GuestAddress(MEMORY - 16 * 16);
    assert!(last.validate(&memory).is_ok());
}

#[test]
fn largest_sizes_are_powers_of_two() {
    for size in [1, 2, 256, 32768] {
        assert_eq!(QueueConfig::new(size).unwrap().max_size(), size);
    }
    for size in [0, 3, 255, 32769, u16::MAX] {
        assert!(QueueConfig::new(size).is_err());
    }
}

#[test]
fn a_chain_that_was_not_taken_last_is_not_put_back_but_completed() {
    let mut rig = rig();
    let heads = [(); 2].map(|()| u32::from(rig.driver.offer(&[Buffer::writable(BUFFER, 4)])));
    let (first, last) = (rig.pop().unwrap(), rig.pop().unwrap());
    assert!(rig.queue.put_back(first).is_err());
    rig.queue.put_back(last).unwrap();
    rig.serve(4);
    assert!(rig.pop().is_none());
    let used: Vec<_> = std::iter::from_fn(|| rig.driver.take_used()).collect();
    assert_eq!(used, [(heads[0], 0), (heads[1], 4)]);
    assert_eq!(rig.queue.in_flight(), 0);
}

#[test]
fn chains_of_one_head_that_are_dropped_together_are_all_completed() {
    let mut rig = rig();
    let head = rig.driver.offer(&[Buffer::writable(BUFFER, 4)]);
    rig.driver.offer_head(head);
    let both = (rig.pop().unwrap(), rig.pop().unwrap());
    drop(both);
    rig.queue.notify();
    assert_eq!(rig.queue.in_flight(), 0);
    let used: Vec<_> = std::iter::from_fn(|| rig.driver.take_used()).collect();
    assert_eq!(used, [(head.into(), 0); 2]);
}
