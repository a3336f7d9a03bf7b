//! virtio-balloon with Linux's driver: memory that comes back to the host, and what the guest sees of that.

mod support;

use std::fs;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use support::linux::{BOOT_LIMIT, LinuxGuest, RunningGuest};
use vmcell::{BalloonConfig, BalloonHandle, MemoryBacking, MemoryConfig, PageSize};

const MIB: u64 = 1 << 20;

/// Tells `MemTotal` and `MemFree` for each line that is typed, until the end.
const ANSWER: &str = r#"
insmod /spare/*-virtio_balloon.ko
answer() {
    while read word && [ "$word" != end ]; do
        set -- $(grep -E '^Mem(Total|Free)' /proc/meminfo)
        echo "$word: total $2 free $5 KiB"
    done
}
echo ready
"#;

/// The memory of the whole process is looked at, so it has one guest at a time.
static ALONE: Mutex<()> = Mutex::new(());

struct Guest {
    running: RunningGuest,
    balloon: BalloonHandle,
    asked: u32,
    _alone: MutexGuard<'static, ()>,
}

impl Guest {
    fn start(script: &str, memory: MemoryConfig, balloon: BalloonConfig) -> Self {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let guest = LinuxGuest::new(&format!("{ANSWER}{script}"));
        let running = guest.start(|builder| builder.memory(memory).balloon(balloon));
        let balloon = running.vm.balloon().unwrap();
        running.expect("ready");
        Self { running, balloon, asked: 0, _alone: alone }
    }

    /// How much memory the guest has, and how much of it is free, in MiB.
    fn memory(&mut self) -> (u64, u64) {
        self.asked += 1;
        self.running.type_in(&format!("ask{}\n", self.asked));
        let begin = format!("ask{}: total ", self.asked);
        let line = move |text: &str| {
            let rest = text.split_once(&begin)?.1;
            let (numbers, _) = rest.split_once(" KiB")?;
            let (total, free) = numbers.split_once(" free ")?;
            Some((total.parse::<u64>().ok()? >> 10, free.parse::<u64>().ok()? >> 10))
        };
        self.running.expect(&format!("ask{}: total", self.asked));
        let mut found = None;
        wait_until("the whole line", || {
            found = line(&self.running.transcript.text());
            found.is_some()
        });
        found.unwrap()
    }

    fn end(mut self) {
        self.running.type_in("end\n");
        self.asked = 0;
        self.running.finish();
    }

    fn count(&self, name: &str) -> u64 {
        let devices = self.running.vm.metrics().devices;
        devices.iter().find(|device| device.name == "balloon0").unwrap().counters[name]
    }
}

/// What the process takes of the host's memory, in MiB.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() >> 10
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < BOOT_LIMIT, "no {what}: {} MiB are resident", resident());
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test"]
fn linux_gives_as_much_memory_back_as_it_is_asked_for_and_takes_it_again() {
    // All of it is there from the beginning, so that what goes shows.
    let memory = MemoryConfig::mib(256).prealloc(true);
    let mut guest = Guest::start("answer", memory, BalloonConfig::new().deflate_on_oom(false).reporting(false));
    let (total, free) = guest.memory();
    let before = resident();
    assert!(before >= 256, "{before} MiB of 256 that were taken");
    guest.balloon.set_target_mib(128).unwrap();
    wait_until("128 MiB", || guest.balloon.actual() == 128 * MIB);
    let (now, now_free) = guest.memory();
    assert!(total - now >= 127 && total - now <= 129, "{now} MiB of {total}");
    assert!(free - now_free >= 120, "{now_free} MiB are free, and were {free}");
    let after = resident();
    assert!(before - after >= 124, "{after} MiB are resident, and were {before}");
    assert_eq!(guest.count("inflated_pages"), 128 * MIB / 4096);
    for counter in ["repeated_pages", "refused_pages", "kept_bytes", "reported_bytes"] {
        assert_eq!(guest.count(counter), 0, "{counter}");
    }

    guest.balloon.set_target(0).unwrap();
    wait_until("none", || guest.balloon.actual() == 0);
    assert_eq!((guest.memory().0, guest.count("deflated_pages")), (total, 128 * MIB / 4096));
    guest.end();
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test"]
fn linux_says_of_its_memory_what_it_knows_itself() {
    let balloon = BalloonConfig::new().statistics_every(Duration::from_secs(1));
    let mut guest = Guest::start("answer", MemoryConfig::mib(256), balloon);
    wait_until("statistics", || guest.balloon.statistics().is_some());
    let said = guest.balloon.statistics_within(BOOT_LIMIT).unwrap();
    let (total, free) = guest.memory();
    assert_eq!(said.total.map(|bytes| bytes / MIB), Some(total));
    let said_free = said.free.unwrap() / MIB;
    assert!(said_free.abs_diff(free) < 16, "{said_free} MiB, {free} MiB");
    assert!(said.minor_faults.unwrap() > 0 && said.available.unwrap() < 256 * MIB, "{said:?}");
    assert!(said.age < BOOT_LIMIT);
    let count = guest.count("statistics");
    wait_until("more", || guest.count("statistics") > count + 2);
    guest.end();
}

/// A file of so many MiB in the guest's memory is written and removed, and nobody asks for anything.
fn comes_back_by_itself(freed: u64, memory: MemoryConfig) {
    let script = format!(
        "mkdir /file && mount -t tmpfs -o size=600m file /file
        dd if=/dev/zero of=/file/zeroes bs=1M count={freed} 2> /dev/null
        echo written; answer; rm /file/zeroes; echo removed; answer"
    );
    let guest = Guest::start(&script, memory, BalloonConfig::new());
    guest.running.expect("written");
    let written = resident();
    assert!(written >= freed, "{written} MiB");
    let reported = guest.balloon.reported();
    guest.running.type_in("end\n");
    guest.running.expect("removed");
    // Linux reports neither blocks of less than 2 MiB nor those of a zone that has little, as the first 16 MiB are.
    let least = freed - 32;
    wait_until(&format!("{least} MiB back of {written}"), || resident() + least <= written);
    assert!(guest.balloon.reported() - reported >= least * MIB);
    assert_eq!((guest.count("kept_bytes"), guest.balloon.actual()), (0, 0));
    guest.end();
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test"]
fn what_linux_frees_comes_back_without_being_asked_for() {
    comes_back_by_itself(512, MemoryConfig::mib(768));
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test --long"]
fn what_linux_frees_comes_back_from_huge_pages_as_well() {
    comes_back_by_itself(512, MemoryConfig::mib(768).pages(PageSize::Transparent));
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test --long"]
fn what_linux_frees_comes_back_from_a_memfd_as_well() {
    // Less, because a nested host takes its time for pages of a memfd.
    comes_back_by_itself(128, MemoryConfig::mib(320).backing(MemoryBacking::Memfd));
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test"]
fn linux_takes_memory_back_rather_than_end_a_process() {
    let script = "answer; read size; dd if=/dev/zero of=/dev/null bs=${size}M count=1; echo dd ended with $?; answer";
    let mut guest = Guest::start(script, MemoryConfig::mib(256), BalloonConfig::new());
    guest.balloon.set_target_mib(150).unwrap();
    wait_until("150 MiB", || guest.balloon.actual() == 150 * MIB);
    // A little more than there is: Linux takes 1 MiB at a time, each time that it has looked everywhere else.
    let (_, free) = guest.memory();
    guest.running.type_in(&format!("end\n{}\n", free + 8));
    guest.running.expect("dd ended with 0");
    assert!(guest.count("deflated_pages") > 0, "it had enough");
    guest.end();
}
