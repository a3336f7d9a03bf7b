//! What the monitor uses: memory, threads, and how long it was kept from running.

use std::fs;
use std::time::Duration;

/// The process's own memory in KiB: the guests' RAM is on files in memory, which count elsewhere.
pub fn own_memory_kib() -> u64 {
    let text = fs::read_to_string("/proc/self/status").expect("/proc is there");
    let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("the kernel tells it");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// The process's threads, by number and name.
pub fn threads() -> Vec<(i32, String)> {
    let tasks = fs::read_dir("/proc/self/task").expect("/proc is there").flatten();
    let named = tasks.filter_map(|task| {
        let name = fs::read_to_string(task.path().join("comm")).ok()?;
        Some((task.file_name().to_str()?.parse().ok()?, name.trim().to_owned()))
    });
    named.collect()
}

/// The system calls in which a thread waits for storage or for a network, by number.
const ON_BACKENDS: [(u32, &str); 13] = [
    (17, "pread64"),
    (18, "pwrite64"),
    (19, "readv"),
    (20, "writev"),
    (74, "fsync"),
    (75, "fdatasync"),
    (77, "ftruncate"),
    (277, "sync_file_range"),
    (285, "fallocate"),
    (295, "preadv"),
    (296, "pwritev"),
    (327, "preadv2"),
    (328, "pwritev2"),
];

/// What of its backend the thread sleeps in at this moment; not if it runs, or could.
pub fn sleeps_in(thread: i32) -> Option<&'static str> {
    let text = fs::read_to_string(format!("/proc/self/task/{thread}/syscall")).ok()?;
    let number: u32 = text.split(' ').next()?.parse().ok()?;
    ON_BACKENDS.iter().find(|(other, _)| *other == number).map(|(_, name)| *name)
}

/// The threads that are not the test harness's own: those have a test's name, with its module.
pub fn threads_of_ours() -> Vec<String> {
    let own = fs::read_to_string("/proc/self/comm").unwrap_or_default();
    let names = threads().into_iter().map(|(_, name)| name);
    names.filter(|name| !name.contains("::") && name != own.trim()).collect()
}

/// The thread of this name, which is about to take it.
pub fn thread(name: &str) -> i32 {
    let find = || threads().into_iter().find(|(_, other)| other == name).map(|(thread, _)| thread);
    for _ in 0..1000 {
        if let Some(thread) = find() {
            return thread;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("no thread has the name {name}");
}

/// How many times more threads want to run than a host would have that is busy with our guests alone.
pub fn crowd() -> u32 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let runnable = text.split(' ').nth(3).and_then(|field| field.split('/').next()?.parse().ok()).unwrap_or(1u32);
    let processors = std::thread::available_parallelism().map_or(1, |count| count.get() as u32);
    runnable.div_ceil(2 * processors).max(1)
}

/// For how long the calling thread could have run, but others had the processor.
pub fn time_in_line() -> Duration {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    Duration::from_nanos(text.split(' ').nth(1).and_then(|field| field.parse().ok()).unwrap_or(0))
}

/// Does KVM have hardware to build on?
pub fn has_hardware() -> bool {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let flags = text.lines().find(|line| line.starts_with("flags")).unwrap_or_default();
    flags.split(' ').any(|flag| matches!(flag, "vmx" | "svm"))
}

/// Does the host run on an emulated processor, so that everything takes ten times as long?
pub fn is_emulated() -> bool {
    fs::read_to_string("/proc/cpuinfo").is_ok_and(|text| text.contains("QEMU TCG"))
}
