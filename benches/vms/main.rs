//! What many VMs in one process take: `cargo xtask bench scale [--vms N]`.
//!
//! Each VM has 16 MiB of RAM and one vCPU that halts at once, so what is seen is the cost of a VM itself, and of each device that it has
//! beside. A figure, no test: no time is held to a limit.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that prints what it measures")]

mod process;

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use process::Process;
use vmcell::testing::{TinyGuest, memory_disk};
use vmcell::{BalloonConfig, Boot, Disk, Error, IoThread, Limits, RateLimit, RngConfig, Vm, VmBuilder, VsockConfig};

const VMS: usize = 1000;
/// The starts of so many VMs are taken together, at the beginning and at the end.
const BATCH: usize = 100;
const MEMORY_MIB: u64 = 16;
/// At most so many have a device more, each of which takes descriptors.
const EQUIPPED: usize = 200;
/// Of a disk.
const DISK_BYTES: u64 = 1 << 20;
/// For how long the process is watched while all its VMs are idle.
const IDLE: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    match count().and_then(|vms| run(vms).map_err(|error| error.chain())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("vms: {message}");
            ExitCode::FAILURE
        }
    }
}

/// How many VMs: the first argument that is not one of cargo's own.
fn count() -> Result<usize, String> {
    let Some(count) = std::env::args().skip(1).find(|argument| !argument.starts_with("--")) else { return Ok(VMS) };
    let vms = count.parse().ok().filter(|vms| (1..=100_000).contains(vms));
    vms.ok_or_else(|| format!("{count:?} VMs were asked for, allowed are 1 to 100000"))
}

fn run(vms: usize) -> vmcell::Result<()> {
    let guest = std::env::temp_dir().join(format!("vmcell-bench-halt-{}", std::process::id()));
    TinyGuest::halt().write_to(&guest).map_err(|e| Error::new(vmcell::ErrorKind::Host, "no guest").with_source(e))?;
    let shared = IoThread::new("shared").and_then(|io_thread| {
        report("an I/O thread each", &many(vms, &guest, None, Ok)?);
        report("one I/O thread for all", &many(vms, &guest, Some(&io_thread), Ok)?);
        report_devices(vms.min(EQUIPPED), &guest, &io_thread)
    });
    let _ = std::fs::remove_file(guest);
    shared
}

/// Gives a VM what it has beside RAM and a vCPU.
type Equip = fn(VmBuilder) -> vmcell::Result<VmBuilder>;

/// What each device adds to a VM whose guest has no driver for it.
fn report_devices(vms: usize, guest: &Path, io_thread: &IoThread) -> vmcell::Result<()> {
    let devices: [(&str, Equip); 5] = [
        ("rng", |vm| Ok(vm.rng(RngConfig::new()))),
        ("balloon", |vm| Ok(vm.balloon(BalloonConfig::new()))),
        ("vsock", |vm| Ok(vm.vsock(VsockConfig::new(3)))),
        ("disk", |vm| Ok(vm.disk(Disk::from_file(memory_disk(DISK_BYTES))?))),
        ("limited disk", |vm| Ok(vm.disk(Disk::from_file(memory_disk(DISK_BYTES))?.limits(limits())))),
    ];
    // The first VMs find less memory to use again than those behind them.
    many(vms, guest, Some(io_thread), Ok)?;
    let each = |total: u64| total as f64 / vms as f64;
    let plain = many(vms, guest, Some(io_thread), Ok)?.process;
    println!("a device more in each of {vms} VMs, without a driver:");
    for (device, equip) in devices {
        let with = many(vms, guest, Some(io_thread), equip)?.process.less(&plain);
        let (kib, descriptors, mappings) = (each(with.resident_kib), each(with.descriptors), each(with.mappings));
        println!("  {device:<17}  {kib:8.1} KiB, {descriptors:.1} descriptors, {mappings:.1} mappings");
    }
    Ok(())
}

fn limits() -> Limits {
    Limits::new().operations(RateLimit::per_second(1000)).bytes(RateLimit::per_second(1 << 20))
}

/// What so many VMs took.
struct Taken {
    vms: usize,
    /// To build and start one of the first, and of the last.
    first: Duration,
    last: Duration,
    end: Duration,
    /// With all VMs, less what there was before.
    process: Process,
    /// CPU time while nothing happened, of `IDLE`.
    idle: Duration,
}

fn many(vms: usize, guest: &Path, io_thread: Option<&IoThread>, equip: Equip) -> vmcell::Result<Taken> {
    let before = Process::now();
    let (mut running, mut starts) = (Vec::with_capacity(vms), Vec::with_capacity(vms));
    for _ in 0..vms {
        let begun = Instant::now();
        let mut builder = Vm::builder().memory_mib(MEMORY_MIB).boot(Boot::linux(guest));
        if let Some(io_thread) = io_thread {
            builder = builder.io_thread(io_thread.clone());
        }
        let vm = equip(builder).and_then(VmBuilder::build).and_then(|vm| vm.start().map(|()| vm));
        let vm = vm.map_err(|error| at(running.len(), error))?;
        running.push(vm);
        starts.push(begun.elapsed());
    }
    // The last ones come to their halt.
    std::thread::sleep(Duration::from_millis(500));
    let with = Process::now();
    std::thread::sleep(IDLE);
    let idle = Process::now().cpu.saturating_sub(with.cpu);
    let batch = BATCH.min(vms);
    let mean = |of: &[Duration]| of.iter().sum::<Duration>() / u32::try_from(of.len()).unwrap_or(1);
    let (first, last) = (mean(&starts[..batch]), mean(&starts[vms - batch..]));
    let begun = Instant::now();
    drop(running);
    Ok(Taken { vms, first, last, end: begun.elapsed(), process: with.less(&before), idle })
}

fn at(number: usize, error: Error) -> Error {
    let kind = error.kind();
    Error::new(kind, format!("VM {number} was not made")).with_source(error)
}

fn report(how: &str, taken: &Taken) {
    let (process, vms) = (&taken.process, taken.vms);
    let each = |total: u64| total as f64 / vms as f64;
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    println!("{vms} VMs of {MEMORY_MIB} MiB, {how}:");
    println!("  descriptors a VM   {:8.1}   ulimit -n of at least {}", each(process.descriptors), process.descriptors);
    println!("  mappings a VM      {:8.1}   vm.max_map_count of at least {}", each(process.mappings), process.mappings);
    println!(
        "  threads a VM       {:8.1}   one of them KVM's own, on hosts where it recovers huge pages",
        each(process.threads)
    );
    println!("  memory a VM        {:8.1} KiB, with what its guest touched", each(process.resident_kib));
    println!("  build and start    {:8.2} ms, mean of the first {}", ms(taken.first), BATCH.min(vms));
    println!("                     {:8.2} ms, mean of the last", ms(taken.last));
    println!("  end all            {:8.2} s, one after the other", taken.end.as_secs_f64());
    println!("  CPU while idle     {:8.2} ms of {} s, all VMs together", ms(taken.idle), IDLE.as_secs());
}
