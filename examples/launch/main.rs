//! A micro-VM launcher: one guest, its serial console on standard output, everything else on standard error.
//!
//! Exit status: 0 the guest shut down or reset itself; 1 it failed; 2 bad arguments.
#![allow(clippy::print_stderr, reason = "a program talks to the person who runs it")]

mod options;
mod terminal;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use vmcell::{Boot, Console, Disk, ErrorKind, Exit, IoThread, MemoryConfig, Nic, Vm};

use crate::options::{ConsoleOption, Options};
use crate::terminal::RawTerminal;

const FAILED: u8 = 1;
const BAD_ARGUMENTS: u8 = 2;

fn main() -> ExitCode {
    let options = Options::parse();
    match launch(&options) {
        Ok(Exit::Shutdown | Exit::Reset(_)) => ExitCode::SUCCESS,
        Ok(Exit::Failed(error)) => {
            eprintln!("launch: {}", error.chain());
            ExitCode::from(FAILED)
        }
        Ok(other) => {
            eprintln!("launch: the guest ended unexpectedly: {other:?}");
            ExitCode::from(FAILED)
        }
        Err(error) => {
            eprintln!("launch: {}", error.chain());
            ExitCode::from(if error.kind() == ErrorKind::InvalidConfig { BAD_ARGUMENTS } else { FAILED })
        }
    }
}

fn launch(options: &Options) -> vmcell::Result<Exit> {
    let begin = Instant::now();
    let vm = build(options)?;
    let terminal = RawTerminal::enter(options.console == ConsoleOption::Stdio);
    vm.start()?;
    if options.verbose {
        eprintln!("launch: built and started in {} us\r", begin.elapsed().as_micros());
    }
    let exit = vm.wait()?;
    drop(terminal);
    if options.verbose {
        eprintln!("launch: the guest ended after {} ms: {exit:?}", begin.elapsed().as_millis());
    }
    Ok(exit)
}

fn build(options: &Options) -> vmcell::Result<Vm> {
    let mut boot = Boot::linux(&options.kernel)
        .cmdline(&options.cmdline)
        .discovery(options.discovery.into())
        .protocol(options.protocol.into());
    if let Some(initrd) = &options.initrd {
        boot = boot.initrd(initrd);
    }
    let console = match &options.console {
        ConsoleOption::Stdio => Console::stdio(),
        ConsoleOption::None => Console::none(),
        ConsoleOption::File(path) => Console::file(path)?,
    };
    let io_thread = IoThread::new("vmcell-io")?;
    io_thread.set_polling(Duration::from_micros(options.poll_us));
    let memory = MemoryConfig::mib(options.memory).pages(options.pages.into());
    let mut builder = Vm::builder().vcpus(options.vcpus).memory(memory).boot(boot).console(console);
    builder = builder.io_thread(io_thread);
    for disk in &options.disks {
        let opened = Disk::open(&disk.path)?.read_only(disk.read_only);
        builder = builder.disk(opened.engine(disk.engine).direct(disk.direct));
    }
    for tap in &options.taps {
        let nic = Nic::tap(&tap.name)?;
        builder = builder.nic(match tap.mac {
            Some(mac) => nic.mac(mac),
            None => nic,
        });
    }
    builder.build()
}
