//! Snapshots by the clock, of volumes in files, with guests that are fakes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use vmcell::volume::{Volume, VolumeOptions};

use super::host_test::Bench;
use super::schedule::Moment;
use super::upkeep::{Taker, Tidier};
use super::*;
use crate::state::MadeBy;

const DAY: u64 = 86_400;
const VOLUME: &str =
    "[[volumes]]\nname = \"data\"\npath = \"/data\"\nsize = \"4M\"\nsnapshots = { every = \"1d\", keep = \"5d\" }\n";

struct Days {
    bench: Bench,
    taker: Taker,
    tidier: Tidier,
    now: Moment,
}

impl Days {
    fn new() -> Self {
        let bench = Bench::new();
        bench.deploy(&(Bench::text("", "") + VOLUME)).unwrap();
        let (taker, tidier) = (Taker::new(&bench.host), Tidier::new(&bench.host));
        let now = Moment { wall: 50 * 365 * DAY, running: Duration::ZERO };
        Self { bench, taker, tidier, now }
    }

    /// Some days go by, with a look every eight hours.
    fn days(&mut self, count: u64) {
        const STEP: u64 = DAY / 3;
        for _ in 0..count * 3 {
            self.taker.pass(self.now);
            self.tidy();
            self.now = Moment { wall: self.now.wall + STEP, running: self.now.running + Duration::from_secs(STEP) };
        }
    }

    fn tidy(&mut self) {
        for _ in 0..4 {
            self.now.running += Duration::from_secs(10);
            self.tidier.pass(self.now.running, &|| true);
        }
    }

    fn made(&self) -> Vec<(u32, MadeBy)> {
        let told = self.bench.host.volumes().list("web").unwrap().remove(0);
        assert_eq!(self.bench.host.trouble("web", "data"), None);
        told.snapshots.iter().map(|snapshot| (snapshot.snapshot, snapshot.made)).collect()
    }

    fn files(&self) -> BTreeSet<String> {
        let folder = self.bench.host.parts.folder.volumes();
        let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
        names.map(|name| name.to_str().unwrap().to_owned()).collect()
    }

    fn opens(&self) {
        let (file, key) = self.bench.host.volumes().opened("web", "data").unwrap();
        let mut disk = vmcell::DiskConfig::new(file);
        disk.read_only = true;
        Volume::open_with(VolumeOptions::new(disk), &key).unwrap();
    }
}

#[test]
fn daily_snapshots_are_kept_for_five_days_and_those_of_people_stay() {
    let mut days = Days::new();
    days.days(3);
    assert_eq!(snapshot(&days.bench.host, "web", "data").unwrap(), 4);
    days.days(12);
    let made = days.made();
    let of = |by: MadeBy| made.iter().filter(|(_, made)| *made == by).count();
    assert_eq!((of(MadeBy::Clock), of(MadeBy::Person), made[0]), (5, 1, (4, MadeBy::Person)));
    // The snapshots, and what the volume is in now.
    assert_eq!(days.files().len(), 7, "{:?}", days.files());
    days.opens();
    restore(&days.bench.host, "web", "data", 4, &|_| {}).unwrap();
    assert_eq!(days.made().last().unwrap().1, MadeBy::Restore);
    days.days(7);
    days.opens();
    let made = days.made();
    assert_eq!((made.len(), made[0].0, made[1].1), (7, 4, MadeBy::Restore));
}

#[test]
fn a_snapshot_that_is_removed_goes_once_nothing_of_it_is_needed() {
    let mut days = Days::new();
    let host = Arc::clone(&days.bench.host);
    for number in 1..=3 {
        assert_eq!(snapshot(&host, "web", "data").unwrap(), number);
    }
    fork(&host, ("web", "data"), 1, ("other", "copy")).unwrap();
    remove(&host, "web", "data", 1).unwrap();
    for (fault, why) in [
        (remove(&host, "web", "data", 1).unwrap_err(), "has no snapshot 1"),
        (restore(&host, "web", "data", 1, &|_| {}).unwrap_err(), "has no snapshot 1"),
        (fork(&host, ("web", "data"), 1, ("third", "copy")).unwrap_err(), "has no snapshot 1"),
    ] {
        assert!(fault.message.contains(why), "{fault}");
    }
    days.tidy();
    assert!(days.files().contains("web.data.1.vol"), "the fork needs it");
    // The newest one is below what is written to.
    remove(&host, "web", "data", 3).unwrap();
    days.tidy();
    assert!(days.files().contains("web.data.3.vol"));
    assert_eq!(snapshot(&host, "web", "data").unwrap(), 4);
    days.tidy();
    assert!(!days.files().contains("web.data.3.vol"), "{:?}", days.files());
    assert_eq!(days.made().iter().map(|(number, _)| *number).collect::<Vec<_>>(), [2, 4]);
    days.opens();
    let (file, key) = host.volumes().opened("other", "copy").unwrap();
    Volume::open(file, &key).unwrap();
}

#[test]
fn a_process_that_ends_in_the_middle_goes_on_with_what_is_there() {
    let mut days = Days::new();
    let host = Arc::clone(&days.bench.host);
    (1..=3).for_each(|number| assert_eq!(snapshot(&host, "web", "data").unwrap(), number));
    remove(&host, "web", "data", 1).unwrap();
    let folder = host.parts.folder.volumes();
    // What an attempt that was broken off has left.
    std::fs::write(folder.join("web.data.2.new"), "begun").unwrap();
    days.tidier.pass(Duration::ZERO, &|| true);
    assert!(days.files().contains("web.data.1.vol") && !days.files().contains("web.data.2.new"));
    days.opens();
    // It ends between the two steps; or even after the file is gone, and before that is written down.
    days.tidier = Tidier::new(&host);
    std::fs::remove_file(folder.join("web.data.1.vol")).unwrap();
    days.opens();
    days.tidy();
    assert!(host.parts.state.untidy_volumes().unwrap().is_empty());
    let is_over = std::sync::atomic::AtomicBool::new(false);
    remove(&host, "web", "data", 2).unwrap();
    days.tidier.pass(days.now.running, &|| !is_over.swap(true, std::sync::atomic::Ordering::SeqCst));
    assert!(days.files().contains("web.data.2.vol") && !days.files().contains("web.data.3.new"), "{:?}", days.files());
    days.tidy();
    assert!(!days.files().contains("web.data.2.vol"));
    days.opens();
}

#[test]
fn what_fails_is_told_and_tried_again_later() {
    let mut days = Days::new();
    let (file, _) = days.bench.host.volumes().opened("web", "data").unwrap();
    let hidden = file.with_extension("hidden");
    std::fs::rename(&file, &hidden).unwrap();
    days.taker.pass(days.now);
    let why = days.bench.host.trouble("web", "data").unwrap();
    assert!(why.starts_with("no snapshot was taken: ") && why.contains("web.data.1.vol"), "{why}");
    std::fs::rename(&hidden, &file).unwrap();
    days.now.running += Duration::from_secs(59);
    days.taker.pass(days.now);
    assert!(days.bench.host.trouble("web", "data").is_some());
    days.now.running += Duration::from_secs(2);
    days.taker.pass(days.now);
    assert_eq!(days.made(), [(1, MadeBy::Clock)]);
}

#[test]
fn a_command_waits_for_the_clock_and_the_clock_for_none() {
    let mut days = Days::new();
    let host = Arc::clone(&days.bench.host);
    let command = host.occupy("web", false).unwrap();
    days.taker.pass(days.now);
    assert!(days.made().is_empty(), "the app is being changed");
    drop(command);
    let clock = host.occupy_for_a_moment("web").unwrap();
    let other = Arc::clone(&host);
    let waits = std::thread::spawn(move || snapshot(&other, "web", "data").unwrap());
    std::thread::sleep(Duration::from_millis(50));
    assert!(!waits.is_finished());
    drop(clock);
    assert_eq!(waits.join().unwrap(), 1);
}

#[test]
fn the_threads_take_a_snapshot_and_end() {
    let bench = Bench::new();
    bench.deploy(&(Bench::text("", "") + VOLUME)).unwrap();
    let upkeep = Upkeep::start(&bench.host, Arc::new(super::replica::Nowhere)).unwrap();
    bench.until("a snapshot", || bench.host.volumes().list("web").unwrap()[0].snapshots.len() == 1);
    drop(upkeep);
}
