//! What many VMs in one process take: `cargo xtask bench scale [--vms N]`.
//!
//! Each VM has 16 MiB of RAM and one vCPU that halts at once, so what is seen is the cost of a VM itself, and of each device that it has
//! beside. A figure, no test: no time is held to a limit.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that prints what it measures")]

mod process;

use std::path::Path;
use std::process::{Command, ExitCode};
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
/// Which device alone is looked at, in the environment of a process that does that.
const ONLY: &str = "VMCELL_BENCH_DEVICE";
/// Of a disk.
const DISK_BYTES: u64 = 1 << 20;
/// For how long the process is watched while all its VMs are idle.
const IDLE: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    let measured = count().and_then(|vms| {
        let only = std::env::var(ONLY).ok();
        run(vms, only.as_deref()).map_err(|error| error.chain())?;
        if only.is_none() { report_devices(vms.min(EQUIPPED)) } else { Ok(()) }
    });
    match measured {
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

fn run(vms: usize, only: Option<&str>) -> vmcell::Result<()> {
    let guest = std::env::temp_dir().join(format!("vmcell-bench-halt-{}", std::process::id()));
    TinyGuest::halt().write_to(&guest).map_err(|e| Error::new(vmcell::ErrorKind::Host, "no guest").with_source(e))?;
    let shared = || {
        let io_thread = IoThread::new("shared")?;
        report("an I/O thread each", &many(vms, &guest, None, Ok)?);
        report("one I/O thread for all", &many(vms, &guest, Some(&io_thread), Ok)?);
        Ok(())
    };
    let measured = only.map_or_else(shared, |device| measure(device, vms, &guest));
    let _ = std::fs::remove_file(&guest);
    measured
}

/// Gives a VM what it has beside RAM and a vCPU.
type Equip = fn(VmBuilder) -> vmcell::Result<VmBuilder>;

const NOTHING: &str = "nothing";
const DEVICES: [(&str, Equip); 6] = [
    (NOTHING, Ok),
    ("rng", |vm| Ok(vm.rng(RngConfig::new()))),
    ("balloon", |vm| Ok(vm.balloon(BalloonConfig::new()))),
    ("vsock", |vm| Ok(vm.vsock(VsockConfig::new(3)))),
    ("disk", |vm| Ok(vm.disk(Disk::from_file(memory_disk(DISK_BYTES))?))),
    ("limited disk", |vm| Ok(vm.disk(Disk::from_file(memory_disk(DISK_BYTES))?.limits(limits())))),
];

/// Says what each device adds to a VM whose guest has no driver for it. Each is looked at by a process of its own, in which nothing has left
/// memory that could be used again.
fn report_devices(vms: usize) -> Result<(), String> {
    println!("a device more in each of {vms} VMs, without a driver:");
    let plain = measured_alone(NOTHING, vms)?;
    for (device, _) in DEVICES.iter().filter(|(device, _)| *device != NOTHING) {
        let (kib, descriptors) = measured_alone(device, vms)?;
        println!("  {device:<17}  {:8.1} KiB, {:.1} descriptors", kib - plain.0, descriptors - plain.1);
    }
    Ok(())
}

/// What a VM with this device takes of memory, in KiB, and of descriptors.
fn measured_alone(device: &str, vms: usize) -> Result<(f64, f64), String> {
    let own = std::env::current_exe().map_err(|e| e.to_string())?;
    let output = Command::new(own).arg(vms.to_string()).env(ONLY, device).output().map_err(|e| e.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mut numbers = text.split_whitespace().map_while(|number| number.parse().ok());
    let taken = numbers.next().zip(numbers.next());
    taken.ok_or_else(|| format!("{device}: {}", String::from_utf8_lossy(&output.stderr)))
}

/// Prints what a VM with this device takes, for the process that asked for it.
fn measure(device: &str, vms: usize, guest: &Path) -> vmcell::Result<()> {
    let equip = DEVICES.iter().find(|(name, _)| *name == device).map_or(Ok as Equip, |(_, equip)| *equip);
    let io_thread = IoThread::new("shared")?;
    let taken = many(vms, guest, Some(&io_thread), equip)?.process;
    let each = |total: u64| total as f64 / vms as f64;
    println!("{} {}", each(taken.resident_kib), each(taken.descriptors));
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
