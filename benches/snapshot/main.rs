//! What snapshots and forks take: `cargo xtask bench snapshot`.
//!
//! Guests are of a few instructions, so what is seen is the cost of the VM and its memory. A figure, no test: no time is held to a limit.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that prints what it measures")]

mod guest;

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use guest::Guest;
use vmcell::{Error, ErrorKind, IoThread, LoadMemory, MemoryBacking, Result, SaveOptions, Snapshot};

const ROUNDS: usize = 7;
const FORKS: usize = 1000;
/// So many forks are looked at by themselves, before there are many.
const BATCH: usize = 100;

fn main() -> ExitCode {
    match forks().and_then(run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("snapshot: {}", error.chain());
            ExitCode::FAILURE
        }
    }
}

/// How many forks: the first argument that is not one of cargo's own. Another one names the only part that is measured.
fn forks() -> Result<(usize, Option<String>)> {
    let mut arguments = std::env::args().skip(1).filter(|argument| !argument.starts_with("--"));
    let Some(count) = arguments.next() else { return Ok((FORKS, None)) };
    let forks = count.parse().ok().filter(|forks| (1..=100_000).contains(forks));
    let forks = forks.ok_or_else(|| {
        Error::new(ErrorKind::InvalidConfig, format!("{count:?} forks were asked for, allowed are 1 to 100000"))
    });
    Ok((forks?, arguments.next()))
}

fn run((forks, part): (usize, Option<String>)) -> Result<()> {
    let wants = |name: &str| part.as_ref().is_none_or(|part| part == name);
    if wants("standstill") {
        standstill()?;
    }
    if wants("forks") {
        many_forks(forks)?;
    }
    if wants("files") {
        files()?;
    }
    Ok(())
}

/// How long a guest stands still for its first snapshot, and for another one after it has changed a part of its memory.
fn standstill() -> Result<()> {
    for (mib, used) in [(256, 200), (1024, 1000)] {
        for backing in [MemoryBacking::Memfd, MemoryBacking::Anonymous] {
            let (mut first, mut calls, mut second) = (Vec::new(), Vec::new(), Vec::new());
            for _ in 0..ROUNDS {
                let guest = Guest::boot(mib, used, backing)?;
                let begun = Instant::now();
                let snapshot = guest.vm.snapshot()?;
                calls.push(begun.elapsed());
                first.push(snapshot.standstill());
                guest.vm.write_console(b"x");
                guest.wait()?;
                second.push(guest.vm.snapshot()?.standstill());
            }
            println!(
                "a guest of {mib} MiB on {backing:?}, {used} MiB used: stands still for {}, and for another snapshot {}; the first call takes {}",
                median(&mut first),
                median(&mut second),
                median(&mut calls)
            );
        }
    }
    Ok(())
}

/// How soon a fork answers, and what each of many takes.
fn many_forks(count: usize) -> Result<()> {
    let source = Guest::boot(128, 8, MemoryBacking::Memfd)?;
    let snapshot = source.vm.snapshot()?;
    // It would take a CPU for itself.
    drop(source);
    let shared = IoThread::new("shared")?;
    for (how, io_thread) in [("an I/O thread each", None), ("one I/O thread for all", Some(&shared))] {
        let (mut forks, mut answers) = (Vec::with_capacity(count), Vec::with_capacity(count));
        let (before, begun) = (own_kib(), Instant::now());
        for _ in 0..count {
            let begun = Instant::now();
            let fork = Guest::fork(&snapshot, io_thread)?;
            answers.push(fork.wait()?.duration_since(begun));
            // It waits for more by spinning.
            fork.vm.pause()?;
            forks.push(fork);
        }
        let (all, own) = (begun.elapsed(), own_kib().saturating_sub(before));
        let first = part(&answers[..count.min(BATCH)], 50);
        println!(
            "{count} forks of a guest of 128 MiB, {how}: the first answer after {} (p50), {} (p99), {first} (p50 of the first {}); all in {}, each with {:.0} KiB of its own",
            part(&answers, 50),
            part(&answers, 99),
            count.min(BATCH),
            show(all),
            own as f64 / count as f64
        );
    }
    Ok(())
}

/// That of which so many percent are shorter.
fn part(times: &[Duration], percent: usize) -> String {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    show(sorted.get(times.len() * percent / 100).copied().unwrap_or_default())
}

/// How long it takes to save and to load.
fn files() -> Result<()> {
    let folder = Folder::new()?;
    // As the launcher calls it.
    let path = folder.0.join("vm.snapshot");
    let launcher = std::env::var_os("VMCELL_LAUNCH").map(PathBuf::from);
    for (mib, used) in [(128, 8), (256, 240)] {
        let source = Guest::boot(mib, used, MemoryBacking::Memfd)?;
        let snapshot = source.vm.snapshot()?;
        let (mut saved, mut cached, mut copied, mut mapped) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        drop(source);
        for _ in 0..ROUNDS {
            saved.push(time(|| snapshot.save(&path))?);
            cached.push(time(|| snapshot.save_with(&path, &SaveOptions::new().leave_in_cache()))?);
            copied.push(answer_from(&path, LoadMemory::Copy)?);
            mapped.push(answer_from(&path, LoadMemory::Map)?);
        }
        println!(
            "a guest of {mib} MiB, {used} MiB used: saved in {}, or {} if it is left in the cache; answers after {} if it is copied, {} if it is mapped",
            median(&mut saved),
            median(&mut cached),
            median(&mut copied),
            median(&mut mapped)
        );
        if let Some(launcher) = &launcher {
            let woken = (0..ROUNDS).map(|_| answer_of_launcher(launcher, &folder.0)).collect::<Result<Vec<_>>>();
            println!("  the launcher that wakes it: {} from its exec to the answer", median(&mut woken?));
        }
    }
    Ok(())
}

/// From the start of the program to what its guest prints, which finds a byte to answer.
fn answer_of_launcher(launcher: &Path, folder: &Path) -> Result<Duration> {
    let failed = |e| Error::new(ErrorKind::Host, "the launcher cannot be run").with_source(e);
    let begun = Instant::now();
    let mut command = Command::new(launcher);
    command.arg("--restore").arg(folder).args(["--console", "stdio"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut running = command.stderr(Stdio::null()).spawn().map_err(failed)?;
    let answered = running.stdin.take().zip(running.stdout.take()).ok_or(ErrorKind::Host);
    let answered =
        answered.map_err(|kind| Error::new(kind, "it has no console")).and_then(|(mut input, mut output)| {
            input.write_all(b"x").and_then(|()| output.read_exact(&mut [0])).map_err(failed)?;
            Ok(begun.elapsed())
        });
    let _ = running.kill().and_then(|()| running.wait());
    answered
}

fn answer_from(path: &Path, memory: LoadMemory) -> Result<Duration> {
    let begun = Instant::now();
    let fork = Guest::fork(&Snapshot::load_with(path, memory)?, None)?;
    Ok(fork.wait()?.duration_since(begun))
}

fn time(call: impl FnOnce() -> Result<()>) -> Result<Duration> {
    let begun = Instant::now();
    call()?;
    Ok(begun.elapsed())
}

fn median(times: &mut [Duration]) -> String {
    times.sort_unstable();
    show(times.get(times.len() / 2).copied().unwrap_or_default())
}

fn show(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1e3)
}

/// What this process alone has in memory.
fn own_kib() -> u64 {
    let text = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap_or_default();
    let number = |key: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(key));
        value.and_then(|value| value.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0)
    };
    number("Private_Dirty:") + number("Private_Clean:")
}

struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Self> {
        let path = std::env::temp_dir().join(format!("vmcell-bench-saved-{}", std::process::id()));
        let failed = |e| Error::new(ErrorKind::Host, "no folder for snapshots").with_source(e);
        std::fs::create_dir_all(&path).map_err(failed)?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
