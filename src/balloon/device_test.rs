//! Pages in, pages out, reports and statistics, by a driver in the same process.

use std::time::Duration;

use super::super::statistics::BalloonStatistics;
use super::*;
use crate::event::IoThread;
use crate::memory::GuestAddress;
use crate::testing::{Buffer, Conformance, DriverQueue, MmioDriver, patterned_memory};
use crate::virtio::MmioTransport;
use crate::virtio::spec::mmio;

const RAM: u64 = 4 << 20;
/// Where the driver writes what it sends.
const DATA: u64 = 0x10_0000;
/// The first page that is given away.
const FREE: u32 = 0x200;
const LIMIT: Duration = Duration::from_secs(10);
const ALL: u64 = u64::MAX;

struct Rig {
    driver: MmioDriver,
    queues: Vec<DriverQueue>,
    memory: GuestMemory,
    handle: BalloonHandle,
    thread: IoThread,
}

impl Rig {
    fn new(config: &BalloonConfig) -> Self {
        Self::negotiated(config, ALL)
    }

    /// With those features alone of which the mask has a bit.
    fn negotiated(config: &BalloonConfig, features: u64) -> Self {
        let (memory, thread) = (patterned_memory(RAM), IoThread::new("balloon").unwrap());
        let device = Balloon::new(config, RAM);
        let handle = device.handle();
        let transport = MmioTransport::new(Box::new(device), memory.clone(), &thread).unwrap();
        let driver = MmioDriver::new(transport);
        let queue = |index: u64| DriverQueue::new(&memory, GuestAddress(0x1_0000 * (index + 1)), 64);
        let queues: Vec<_> = (0..5).map(queue).collect();
        driver.bring_up(driver.offered() & (features | 1 << 32), &queues.iter().collect::<Vec<_>>());
        Self { driver, queues, memory, handle, thread }
    }

    fn ask(&mut self, queue: usize, buffers: &[Buffer]) {
        self.queues[queue].offer(buffers);
        self.driver.kick(queue as u32);
    }

    fn used(&mut self, queue: usize) -> u32 {
        self.driver.wait_used(&mut self.queues[queue]).1
    }

    /// Sends numbers of pages, and waits until they are taken.
    fn send(&mut self, queue: usize, numbers: &[u32]) {
        let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        self.memory.write(GuestAddress(DATA), &bytes).unwrap();
        self.ask(queue, &[Buffer::readable(DATA, bytes.len() as u32)]);
        assert_eq!(self.used(queue), 0);
    }

    /// Offers statistics, each a tag and a value.
    fn say(&mut self, entries: &[(u16, u64)]) {
        let bytes: Vec<u8> =
            entries.iter().flat_map(|(tag, value)| [&tag.to_le_bytes()[..], &value.to_le_bytes()].concat()).collect();
        self.memory.write(GuestAddress(DATA), &bytes).unwrap();
        self.ask(2, &[Buffer::readable(DATA, bytes.len() as u32)]);
    }

    /// The pages from the first free one on that are gone.
    fn gone(&self) -> Vec<u32> {
        let is_gone = |page: &u32| {
            let mut bytes = [0; 4096];
            self.memory.read(GuestAddress(u64::from(*page) * PAGE), &mut bytes).unwrap();
            bytes == [0; 4096]
        };
        (FREE..(RAM / PAGE) as u32).filter(is_gone).collect()
    }

    /// Fills a page again, as a guest does that uses it.
    fn use_page(&self, page: u32) {
        self.memory.write(GuestAddress(u64::from(page) * PAGE), &[1; 4096]).unwrap();
    }

    fn count(&self, name: &str) -> u64 {
        self.driver.transport().own_counters()[name]
    }

    fn config(&self) -> (u32, u32) {
        (self.driver.read(mmio::CONFIG), self.driver.read(mmio::CONFIG + 4))
    }
}

fn rig() -> Rig {
    Rig::new(&BalloonConfig::new())
}

#[test]
fn pages_that_go_in_go_back_to_the_host_and_no_others_do() {
    let mut rig = rig();
    // Upwards, downwards, and alone.
    rig.send(0, &[FREE + 1, FREE + 2, FREE + 3, FREE + 9, FREE + 8, FREE + 20]);
    assert_eq!(rig.gone(), [1, 2, 3, 8, 9, 20].map(|page| FREE + page));
    assert_eq!((rig.count("inflated_pages"), rig.count("refused_pages"), rig.count("kept_bytes")), (6, 0, 0));
}

#[test]
fn a_page_that_is_in_is_not_given_away_again_until_it_was_out() {
    let mut rig = rig();
    rig.send(0, &[FREE, FREE, FREE + 1]);
    rig.use_page(FREE);
    rig.send(0, &[FREE]);
    assert_eq!((rig.gone(), rig.count("repeated_pages")), (vec![FREE + 1], 2));
    rig.send(1, &[FREE, FREE, FREE + 7]);
    assert_eq!((rig.count("deflated_pages"), rig.count("refused_pages")), (1, 2));
    rig.send(0, &[FREE]);
    assert_eq!((rig.gone(), rig.count("inflated_pages")), (vec![FREE, FREE + 1], 3));
}

#[test]
fn what_is_no_ram_or_no_whole_number_is_refused_and_the_rest_is_done() {
    let mut rig = rig();
    rig.send(0, &[u32::MAX, FREE, (RAM / PAGE) as u32, FREE + 1]);
    assert_eq!((rig.gone(), rig.count("refused_pages")), (vec![FREE, FREE + 1], 2));
    for buffers in [&[Buffer::readable(DATA, 3)][..], &[Buffer::writable(DATA, 64)], &[Buffer::readable(RAM, 8)]] {
        rig.ask(0, buffers);
        assert_eq!(rig.used(0), 0);
    }
    // Numbers that are torn apart.
    rig.memory.write(GuestAddress(DATA), &(FREE + 4).to_le_bytes()).unwrap();
    rig.ask(0, &[Buffer::readable(DATA, 1), Buffer::readable(DATA + 1, 3)]);
    rig.used(0);
    assert_eq!(rig.gone(), [FREE, FREE + 1, FREE + 4]);
}

#[test]
fn a_long_list_takes_many_turns_and_each_page_goes_once() {
    let mut rig = rig();
    // Every other page, so that none lie in a row, over and over.
    let pages: Vec<u32> = (FREE..(RAM / PAGE) as u32).step_by(2).collect();
    let list: Vec<u32> = pages.iter().copied().cycle().take(200_000).collect();
    let turns = rig.thread.metrics().turns;
    rig.send(0, &list);
    assert!(rig.thread.metrics().turns - turns > 20);
    assert_eq!((rig.gone(), rig.count("inflated_pages")), (pages.clone(), pages.len() as u64));
    assert_eq!(rig.count("repeated_pages"), 200_000 - pages.len() as u64);
}

#[test]
fn free_pages_that_are_reported_go_back_and_only_whole_ones() {
    let mut rig = rig();
    let at = |page: u32| u64::from(FREE + page) * PAGE;
    let buffers = [
        Buffer::writable(at(0), 0x3000),
        Buffer::writable(at(8) + 1, 0x2fff),
        Buffer::writable(at(16), 0x1fff),
        Buffer::writable(at(32) + 8, 0x800),
    ];
    for queue in [3, 4] {
        (FREE..FREE + 40).for_each(|page| rig.use_page(page));
        rig.ask(queue, &buffers);
        assert_eq!(rig.used(queue), 0);
        assert_eq!(rig.gone(), [0, 1, 2, 9, 10, 16].map(|page| FREE + page));
    }
    assert_eq!(rig.handle.reported(), 2 * 6 * PAGE);
    // What the device may only read was not reported.
    rig.ask(3, &[Buffer::readable(at(100), 0x1000)]);
    assert_eq!((rig.used(3), rig.gone().len()), (0, 6));
}

#[test]
fn reports_come_by_the_next_queue_if_there_are_no_statistics_and_by_none_if_they_are_not_wanted() {
    let reports = |rig: &mut Rig, queue: usize| {
        rig.ask(queue, &[Buffer::writable(u64::from(FREE) * PAGE, 0x1000)]);
        assert_eq!(rig.used(queue), 0);
        rig.handle.reported() > 0
    };
    let only = |features: u64| Rig::negotiated(&BalloonConfig::new(), features);
    assert!(reports(&mut only(1 << feature::REPORTING), 2));
    assert!(!reports(&mut only(1 << feature::REPORTING), 3));
    assert!(reports(&mut only(1 << feature::REPORTING), 4));
    for queue in [3, 4] {
        assert!(!reports(&mut Rig::new(&BalloonConfig::new().reporting(false)), queue));
    }
}

#[test]
fn the_features_are_those_of_the_settings() {
    let offered = |config: BalloonConfig| Balloon::new(&config, RAM).info().features;
    assert_eq!(offered(BalloonConfig::new()), 0b10_0111);
    assert_eq!(offered(BalloonConfig::new().deflate_on_oom(false)), 0b10_0011);
    assert_eq!(offered(BalloonConfig::new().reporting(false)), 0b00_0111);
}

#[test]
fn the_driver_is_told_of_the_target_and_tells_how_far_it_is() {
    let rig = Rig::new(&BalloonConfig::new().mib(1));
    assert_eq!((rig.config(), rig.handle.target(), rig.handle.actual()), ((256, 0), 1 << 20, 0));
    let generation = rig.driver.read(mmio::CONFIG_GENERATION);
    rig.handle.set_target(5 * PAGE + 4095).unwrap();
    rig.driver.wait_until("the target", || rig.config().0 == 5);
    assert_ne!(rig.driver.read(mmio::CONFIG_GENERATION), generation);
    assert_ne!(rig.driver.read(mmio::INTERRUPT_STATUS) & mmio::INTERRUPT_CONFIG, 0);
    rig.driver.write(mmio::CONFIG + 4, 3);
    assert_eq!(rig.handle.actual(), 3 * PAGE);
    rig.driver.wait_until("the number", || rig.config() == (5, 3));
    // The target is the host's alone.
    rig.driver.write(mmio::CONFIG, 77);
    assert_eq!((rig.config(), rig.handle.target()), ((5, 3), 5 * PAGE));
    rig.driver.write(mmio::STATUS, 0);
    rig.driver.wait_until("the reset", || rig.driver.status() == 0);
    assert_eq!((rig.handle.actual(), rig.handle.target()), (0, 5 * PAGE));
}

#[test]
fn no_more_than_the_ram_is_asked_for() {
    let rig = rig();
    rig.handle.set_target(RAM).unwrap();
    let refusal = |result: Result<()>| {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        error.to_string()
    };
    let expected = "a target of 4194305 bytes was asked for, allowed are 0 to 4194304, the guest's RAM";
    assert_eq!(refusal(rig.handle.set_target(RAM + 1)), expected);
    let expected = "a target of 5 MiB was asked for, allowed are 0 to 4 MiB, the guest's RAM";
    assert_eq!(refusal(rig.handle.set_target_mib(5)), expected);
    assert_eq!(rig.handle.target(), RAM);
    rig.handle.set_target_mib(4).unwrap();
}

#[test]
fn statistics_are_what_the_guest_said_last() {
    let mut rig = rig();
    assert_eq!(rig.handle.statistics(), None);
    rig.say(&[(5, 1 << 30), (4, 1 << 29), (0xffff, 1), (9, 9), (15, 15)]);
    rig.driver.wait_until("the statistics", || rig.handle.statistics().is_some());
    let said = rig.handle.statistics().unwrap();
    assert!(said.age < LIMIT);
    let expected = BalloonStatistics {
        age: said.age,
        free: Some(1 << 29),
        total: Some(1 << 30),
        huge_page_failures: Some(9),
        direct_reclaims: Some(15),
        ..BalloonStatistics::default()
    };
    assert_eq!(said, expected);
    // It is kept until others are wanted.
    assert_eq!(rig.queues[2].take_used(), None);
    let handle = rig.handle.clone();
    let waits = std::thread::spawn(move || handle.statistics_within(LIMIT).unwrap());
    assert_eq!(rig.used(2), 0);
    rig.say(&[(4, 77)]);
    let said = waits.join().unwrap();
    assert_eq!((said.free, said.total), (Some(77), None));
    rig.driver.write(mmio::STATUS, 0);
    rig.driver.wait_until("the reset", || rig.handle.statistics().is_none());
}

#[test]
fn a_guest_that_says_nothing_is_waited_for_no_longer_than_the_limit() {
    let rig = rig();
    let error = rig.handle.statistics_within(Duration::from_millis(20)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    let handle = rig.handle.clone();
    let waits = std::thread::spawn(move || handle.statistics_within(Duration::from_secs(60)));
    drop(rig);
    let error = waits.join().unwrap().unwrap_err();
    assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::InvalidState, "the balloon's VM is gone"));
}

#[test]
fn statistics_come_by_themselves_if_that_is_wanted() {
    let mut rig = Rig::new(&BalloonConfig::new().statistics_every(Duration::from_secs(1)));
    let begun = Instant::now();
    rig.say(&[(4, 1)]);
    rig.used(2);
    assert!(begun.elapsed() < LIMIT);
    rig.say(&[(4, 2)]);
    rig.used(2);
    assert!(begun.elapsed() >= Duration::from_millis(1900), "{:?}", begun.elapsed());
    rig.handle.set_statistics_interval(Duration::ZERO).unwrap();
    rig.say(&[(4, 3)]);
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(rig.queues[2].take_used(), None);
    assert!(rig.handle.set_statistics_interval(Duration::from_secs(86_401)).is_err());
}

#[test]
fn statistics_without_end_are_read_no_further_than_any_driver_says() {
    let mut rig = rig();
    rig.memory.write(GuestAddress(DATA), &[4, 0, 1, 0, 0, 0, 0, 0, 0, 0].repeat(10_000)).unwrap();
    rig.ask(2, &[Buffer::readable(DATA, 2 << 20)]);
    rig.driver.wait_until("the first", || rig.handle.statistics().is_some());
    assert_eq!(rig.handle.statistics().unwrap().free, Some(1));
    // The one before is given back. Less than an entry is none.
    rig.ask(2, &[Buffer::readable(DATA, 9), Buffer::writable(DATA, 1)]);
    assert_eq!(rig.used(2), 0);
    rig.driver.wait_until("the second", || rig.handle.statistics().unwrap().free.is_none());
    // Nothing is said, so nothing is kept.
    rig.ask(2, &[Buffer::writable(DATA, 1)]);
    assert_eq!((rig.used(2), rig.count("statistics"), rig.queues[2].take_used()), (0, 2, None));
}

#[test]
fn a_pause_forgets_neither_what_is_in_nor_how_far_a_list_has_come() {
    let mut rig = rig();
    rig.say(&[(4, 1)]);
    rig.driver.wait_until("the statistics", || rig.handle.statistics().is_some());
    let list: Vec<u32> = (FREE..(RAM / PAGE) as u32).step_by(2).collect();
    let bytes: Vec<u8> = list.iter().flat_map(|number| number.to_le_bytes()).collect();
    rig.memory.write(GuestAddress(DATA), &bytes).unwrap();
    rig.ask(0, &[Buffer::readable(DATA, bytes.len() as u32)]);
    for _ in 0..5 {
        rig.driver.transport().pause(LIMIT).unwrap();
        rig.driver.transport().save().unwrap();
        rig.driver.transport().resume();
    }
    assert_eq!(rig.used(0), 0);
    assert_eq!((rig.gone(), rig.count("repeated_pages")), (list, 0));
    assert_eq!(rig.count("statistics"), 1, "what was said before the pause was taken for new");
}

#[test]
fn it_goes_on_where_it_was_after_its_state_was_moved() {
    let (memory, thread) = (patterned_memory(RAM), IoThread::new("balloon").unwrap());
    let pages = || Pages::new(RAM / PAGE);
    let mut before = pages();
    (300..400).chain([700, 1023]).for_each(|page| assert!(before.insert(page)));
    let saved = Saved { target: 500, actual: 102, done: [4, 0, 0, 8, 0], seen: true };
    let state = saved.write(&before);
    let (read, after) = Saved::read(&state, &memory, pages()).unwrap();
    assert_eq!((read, after.words().collect::<Vec<_>>()), (saved, before.words().collect()));
    let refusal = |state: &DeviceState| Saved::read(state, &memory, pages()).unwrap_err().to_string();
    let with = |at: usize, byte: u8| {
        let mut state = state.clone();
        state.bytes[at] = byte;
        state
    };
    assert_eq!(refusal(&DeviceState::new(2, [])), "a balloon's state has version 2, allowed is 1");
    assert!(refusal(&DeviceState::new(1, [0; 31])).contains("31 bytes, allowed are 32"));
    assert!(refusal(&with(1, 9)).contains("2548 pages, allowed are 0 to 1024"));
    // A word that begins in between, one behind the RAM, and one that is there twice.
    for (at, byte) in [(32, 1), (39, 1), (33, 4), (48, 0)] {
        assert!(refusal(&with(at, byte)).contains("no RAM or are there twice"), "{at}");
    }
    drop(thread);
}

#[test]
fn it_passes_the_suite_for_all_devices() {
    let make = || Box::new(Balloon::new(&BalloonConfig::new(), 1 << 20)) as Box<dyn VirtioDevice>;
    let serves = |driver: &MmioDriver, queues: &mut [DriverQueue]| {
        let queue = &mut queues[0];
        queue.memory().write(GuestAddress(0x1_0000), &[0x20, 0, 0, 0, 0x21, 0, 0, 0]).unwrap();
        for page in [0x20, 0x21] {
            queue.memory().write(GuestAddress(page * PAGE), &[7; 4096]).unwrap();
        }
        let count = |name: &str| driver.transport().own_counters()[name];
        let before = count("inflated_pages") + count("repeated_pages");
        (0..2).for_each(|index| _ = queues[index].offer(&[Buffer::readable(0x1_0000, 8)]));
        driver.kick(0);
        assert_eq!(driver.wait_used(&mut queues[0]).1, 0);
        assert_eq!(count("inflated_pages") + count("repeated_pages"), before + 2);
        driver.kick(1);
        assert_eq!(driver.wait_used(&mut queues[1]).1, 0);
    };
    let features = [feature::MUST_TELL_HOST, feature::STATS_VQ, feature::DEFLATE_ON_OOM, feature::REPORTING];
    let features = features.iter().fold(0, |mask, bit| mask | 1 << bit);
    Conformance::new(make, serves, features).writable_config(4..8).run();
}
