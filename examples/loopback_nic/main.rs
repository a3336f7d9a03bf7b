//! Two VMs in one process, connected by a cable that this program makes: no TAP device, no bridge, no root.
//!
//! `cargo run --release --example loopback_nic -- vmlinuz --initrd initrd.img --delay-us 500`
#![allow(clippy::print_stdout, reason = "a program talks to the person who runs it")]

mod cable;

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Duration;

use cable::{End, cable};
use clap::Parser;
use vmcell::{Boot, Console, Nic, Vm};

/// Boots two guests that see each other at the other end of their network. Each is told its number by `guest=1` or `guest=2`.
#[derive(Parser)]
struct Options {
    /// A bzImage or an ELF image
    kernel: PathBuf,
    #[arg(long)]
    initrd: Option<PathBuf>,
    #[arg(long, default_value = "console=ttyS0", allow_hyphen_values = true)]
    cmdline: String,
    /// How long a frame takes
    #[arg(long, default_value_t = 1000)]
    delay_us: u64,
    /// The frames that are under way at once; more are dropped
    #[arg(long, default_value_t = 256)]
    room: usize,
    /// Where the second guest's console goes; the first one's is standard output
    #[arg(long, default_value = "second-guest.log")]
    second_console: PathBuf,
}

fn build(options: &Options, number: u8, end: End, console: Console) -> vmcell::Result<Vm> {
    let mut boot = Boot::linux(&options.kernel).cmdline(format!("{} guest={number}", options.cmdline));
    if let Some(initrd) = &options.initrd {
        boot = boot.initrd(initrd);
    }
    // A backend has an I/O thread of its own, unless another one is chosen.
    let nic = Nic::backend(end).mac([2, 0, 0, 0, 0, number]);
    Vm::builder().memory_mib(256).boot(boot).nic(nic).console(console).build()
}

fn main() -> vmcell::Result<()> {
    let options = Options::parse();
    let (one, two) = cable(Duration::from_micros(options.delay_us), options.room);
    let dropped = [one.dropped(), two.dropped()];
    let second = build(&options, 2, two, Console::file(&options.second_console))?;
    let first = build(&options, 1, one, Console::stdio())?;
    second.start()?;
    first.start()?;
    println!("the first guest ended: {:?}", first.wait()?);
    second.stop()?;
    let [from_first, from_second] = dropped.map(|dropped| dropped.load(Ordering::Relaxed));
    println!("frames that were dropped: {from_first} of the first, {from_second} of the second");
    Ok(())
}
