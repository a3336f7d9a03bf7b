//! Snapshots at any moment of a guest under load, which checks what it does itself: see `tests/guests/guest/body/worker.rs`.

#[path = "hostile/host.rs"]
#[allow(dead_code, reason = "a part of it is used")]
mod host;
mod support;

use std::collections::VecDeque;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use support::{Transcript, is_long};
use vmcell::event::{Io, Wants};
use vmcell::net::{Delivery, Need, NicBackend, NicInfo, Offloads, RxBatch, TxBatch, VnetHeader};
use vmcell::testing::memory_disk;
use vmcell::{
    Boot, DeviceKindMetrics, Discovery, Disk, MemoryBacking, MemoryConfig, Nic, Seccomp, Snapshot, Vm, VmBuilder,
};

const LIMIT: Duration = Duration::from_secs(60);
const SECTORS: u64 = 512;
const DISK: u64 = SECTORS * 512;
const CELLS: u64 = 4096;
const IDENTITY_SHIFT: u32 = 40;

/// Sends each frame back, and keeps the numbers in them.
struct Echo {
    frames: VecDeque<Vec<u8>>,
    seen: Arc<Mutex<Vec<u64>>>,
}

impl NicBackend for Echo {
    fn info(&self) -> NicInfo {
        NicInfo::default()
    }

    fn attach(&mut self, _io: &mut Io) -> vmcell::Result<()> {
        Ok(())
    }

    fn negotiate(&mut self, _guest: Offloads) -> vmcell::Result<()> {
        Ok(())
    }

    fn receive(&mut self, io: &mut Io, frames: &mut RxBatch) {
        while !io.spent()
            && let Some(frame) = self.frames.front()
            && frames.put(io, &VnetHeader::default(), frame) != Delivery::NoRoom
        {
            self.frames.pop_front();
        }
    }

    fn send(&mut self, io: &mut Io, frames: &mut TxBatch) {
        while let Some(frame) = frames.next(io) {
            let mut bytes = vec![0; frame.len() as usize];
            frame.data().copy_out(0, &mut bytes).unwrap();
            frames.done();
            self.seen.lock().unwrap().push(u64::from_le_bytes(bytes[14..22].try_into().unwrap()));
            self.frames.push_back(bytes);
        }
    }

    fn wants(&self, need: Need, wants: &mut Wants) {
        if need.room && !self.frames.is_empty() {
            wants.again();
        }
    }
}

/// A VM in which the guest works, and all that it has done outside.
struct Worker {
    vm: Vm,
    transcript: Transcript,
    disk: File,
    seen: Arc<Mutex<Vec<u64>>>,
    told: usize,
    /// Which identity it took after which number. That of a fork begins with its source's.
    identities: Vec<(u64, u64)>,
    /// The number of the last step before the disk and the network were its own.
    since: Option<u64>,
}

/// How far a guest is.
struct Report {
    number: u64,
    hash: u64,
    sum: u64,
    resent: u64,
}

impl Worker {
    fn boot(backing: MemoryBacking) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("guest");
        std::fs::write(&path, vmcell_test_guests::GUEST).unwrap();
        let cmdline = format!("case=worker tsc_khz={}", host::tsc_khz());
        let boot = Boot::linux(&path).cmdline(cmdline).discovery(Discovery::Cmdline);
        let memory = MemoryConfig::mib(32).backing(backing);
        let worker = Self::start(Vm::builder().memory(memory).boot(boot), memory_disk(DISK), Vec::new());
        worker.transcript.expect("ready", LIMIT);
        Self { since: Some(0), ..worker }
    }

    fn fork(copy: &Copy) -> Self {
        let disk = memory_disk(DISK);
        disk.write_all_at(&copy.disk, 0).unwrap();
        Self::start(Vm::builder().fork_of(&copy.snapshot), disk, copy.identities.clone())
    }

    fn start(builder: VmBuilder, disk: File, identities: Vec<(u64, u64)>) -> Self {
        let (transcript, seen) = (Transcript::default(), Arc::<Mutex<Vec<u64>>>::default());
        let nic = Nic::backend(Echo { frames: VecDeque::new(), seen: Arc::clone(&seen) });
        let builder = builder.disk(Disk::from_file(disk.try_clone().unwrap()).unwrap()).nic(nic);
        let vm = builder.console(transcript.console()).seccomp(Seccomp::Kill).build();
        let vm = vm.unwrap_or_else(|e| panic!("{}", e.chain()));
        vm.start().unwrap();
        Self { vm, transcript, disk, seen, told: 0, identities, since: None }
    }

    /// Copies it, with its disk, at this very moment.
    fn copy(&self) -> Copy {
        let mut disk = vec![0; DISK as usize];
        let snapshot = self.vm.snapshot_with(|| self.disk.read_exact_at(&mut disk, 0));
        let snapshot = snapshot.unwrap_or_else(|e| panic!("{}", e.chain()));
        Copy { snapshot, disk, identities: self.identities.clone() }
    }

    fn type_in(&self, text: &str) {
        assert_eq!(self.vm.write_console(text.as_bytes()), text.len());
    }

    /// The numbers in the next line of a kind, in which each stands behind an equals sign.
    fn answer(&mut self, kind: &str) -> Vec<u64> {
        let told = self.told;
        let is_there = |text: &str| text[told..].contains("fail") || text[told..].contains(" end\n");
        assert!(self.transcript.wait_until(LIMIT, is_there), "{}", self.transcript.text());
        let text = self.transcript.text();
        assert!(!text.contains("fail"), "{text}");
        let line = text[told..].split_inclusive('\n').find(|line| line.contains(" end\n")).unwrap().to_owned();
        assert!(line.starts_with(kind), "{line}");
        self.told = text.len();
        line.split(' ').filter_map(|word| Some(word.split_once('=')?.1.parse().unwrap())).collect()
    }

    fn take_identity(&mut self, identity: u64) {
        self.type_in(&format!("i{identity:08} "));
        let [took, after] = self.answer("is ")[..] else { panic!("two numbers") };
        assert_eq!(took, identity);
        self.identities.push((after, identity));
    }

    fn identity_at(&self, number: u64) -> u64 {
        self.identities.iter().rev().find(|(after, _)| number > *after).map_or(0, |(_, identity)| *identity)
    }

    fn stamp(&self, number: u64) -> u64 {
        self.identity_at(number) << IDENTITY_SHIFT | number
    }

    /// Has it say how far it is, compares that with what must be so, inside and outside, and has it go on.
    fn check(&mut self) -> u64 {
        self.type_in("s");
        let [number, hash, sum, resent] = self.answer("at ")[..] else { panic!("four numbers") };
        let report = Report { number, hash, sum, resent };
        self.check_memory(&report);
        self.check_disk(number);
        self.check_network(&report);
        self.type_in("g");
        number
    }

    fn check_memory(&self, report: &Report) {
        let (mut cells, mut hash) = (vec![0u64; CELLS as usize], 0u64);
        for number in 1..=report.number {
            hash = (hash.rotate_left(5) ^ self.stamp(number)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            cells[(number % CELLS) as usize] ^= hash;
        }
        let sum = cells.iter().fold(0u64, |sum, cell| sum.rotate_left(1) ^ cell);
        assert_eq!((report.hash, report.sum), (hash, sum), "after {} steps", report.number);
    }

    /// What was written last to each sector, and by whom.
    fn check_disk(&self, last: u64) {
        for number in last.saturating_sub(SECTORS - 1).max(1)..=last {
            let mut found = [0; 8];
            self.disk.read_exact_at(&mut found, number % SECTORS * 512).unwrap();
            assert_eq!(u64::from_le_bytes(found), self.stamp(number), "of step {number} after {last}");
        }
        // The device has done what the guest has asked for, once.
        if let Some(since) = self.since {
            let metrics = self.vm.metrics();
            let DeviceKindMetrics::Disk(disk) = &metrics.devices[0].kind else {
                panic!("the first device is the disk")
            };
            assert_eq!((disk.writes, disk.reads), (last - since, last - since));
        }
    }

    /// Each number was sent once, but for those that were lost, which were sent again.
    fn check_network(&self, report: &Report) {
        let seen = self.seen.lock().unwrap();
        // A fork may be asked before it has sent anything.
        let first = seen.first().map_or(report.number + 1, |stamp| stamp & ((1 << IDENTITY_SHIFT) - 1));
        let mut once = seen.clone();
        once.dedup();
        let expected: Vec<u64> = (first..=report.number).map(|number| self.stamp(number)).collect();
        assert!(once == expected, "from {first} to {}: {} frames", report.number, once.len());
        assert!(seen.len() - once.len() <= report.resent as usize);
    }
}

/// What a fork begins with.
struct Copy {
    snapshot: Snapshot,
    disk: Vec<u8>,
    identities: Vec<(u64, u64)>,
}

/// The same moments in each run.
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *state >> 33
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn a_guest_under_load_that_is_copied_at_any_moment_goes_on_in_source_and_fork_without_a_lost_or_repeated_request() {
    let mut source = Worker::boot(MemoryBacking::Memfd);
    let (mut state, rounds) = (7, if is_long() { 1000 } else { 10 });
    let mut last = source.check();
    for round in 0..rounds {
        std::thread::sleep(Duration::from_micros(random(&mut state) % 5000));
        let copy = source.copy();
        let mut fork = Worker::fork(&copy);
        let at = fork.check();
        assert!(at >= last, "{at} {last}");
        if round % 5 == 4 {
            // A fork of a fork.
            Worker::fork(&fork.copy()).check();
            last = source.check();
        }
        assert!(fork.check() > at);
    }
    assert!(source.check() > last);
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn forks_that_write_different_things_see_nothing_of_each_other() {
    let mut source = Worker::boot(MemoryBacking::Anonymous);
    source.check();
    let copy = source.copy();
    // So many at a time as a small host has CPUs for.
    for first in (1..=if is_long() { 200 } else { 20 }).step_by(5) {
        let mut forks: Vec<_> = (first..first + 5).map(|_| Worker::fork(&copy)).collect();
        forks.iter_mut().zip(first..).for_each(|(fork, identity)| fork.take_identity(identity));
        forks.iter_mut().for_each(|fork| _ = fork.check());
    }
    source.check();
}
