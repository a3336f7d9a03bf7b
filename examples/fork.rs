//! Boots a guest once, waits for its line on the console, and forks it: each fork is told its number, says what it says, and ends.
//!
//! `fork KERNEL LINE [COUNT] [INITRD [CMDLINE]]`. `LINE` is what the guest prints when it is ready to read a line; it gets the number of the fork.
//!
//! With busybox as an initrd's `/init`, for instance: `echo ready; read number; echo "I am fork $number"; poweroff -f`.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program talks to the person who runs it")]

use std::io::{BufRead, BufReader, Read, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use vmcell::{Boot, Console, ConsoleReader, Error, ErrorKind, MemoryBacking, MemoryConfig, Result, Snapshot, Vm};

const FORKS: usize = 100;
/// So many run at a time.
const AT_ONCE: usize = 10;
const PATIENCE: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.split_at_checked(2).map(|(first, rest)| run(&first[0], &first[1], rest, |line| println!("{line}")))
    {
        Some(Ok(())) => ExitCode::SUCCESS,
        Some(Err(error)) => {
            eprintln!("fork: {}", error.chain());
            ExitCode::FAILURE
        }
        None => {
            eprintln!("usage: fork KERNEL LINE [COUNT] [INITRD [CMDLINE]]");
            ExitCode::FAILURE
        }
    }
}

/// Does it, and passes each line that is to be read by a person on.
pub fn run(kernel: &str, line: &str, rest: &[String], mut say: impl FnMut(String)) -> Result<()> {
    let count = rest.first().map_or(Ok(FORKS), |count| count.parse()).map_err(|e| {
        Error::new(ErrorKind::InvalidConfig, format!("{:?} is no number of forks", rest[0])).with_source(e)
    })?;
    let mut boot = Boot::linux(kernel).cmdline(rest.get(2).map_or("console=ttyS0", String::as_str));
    if let Some(initrd) = rest.get(1) {
        boot = boot.initrd(initrd);
    }
    let begun = Instant::now();
    // On a memfd, so that taking the snapshot copies nothing.
    let memory = MemoryConfig::mib(128).backing(MemoryBacking::Memfd);
    let (console, output, _) = Console::pair()?;
    let source = Vm::builder().memory(memory).boot(boot).console(console).build()?;
    source.start()?;
    read_until(output, line)?;
    let snapshot = source.snapshot()?;
    let (ready, still) = (begun.elapsed().as_millis(), snapshot.standstill().as_micros());
    say(format!("ready after {ready} ms; stood still for {still} us"));
    drop(source);
    let begun = Instant::now();
    for first in (0..count).step_by(AT_ONCE) {
        let forks = (first..count.min(first + AT_ONCE)).map(|number| Fork::start(&snapshot, number));
        for fork in forks.collect::<Result<Vec<_>>>()? {
            fork.finish(&mut say)?;
        }
    }
    say(format!("{count} forks in {} ms", begun.elapsed().as_millis()));
    Ok(())
}

/// A VM that goes on from the snapshot.
struct Fork {
    number: usize,
    vm: Vm,
    output: ConsoleReader,
}

impl Fork {
    fn start(snapshot: &Snapshot, number: usize) -> Result<Self> {
        let (console, output, mut input) = Console::pair()?;
        let vm = Vm::builder().fork_of(snapshot).console(console).build()?;
        vm.start()?;
        input.write_all(format!("{number}\n").as_bytes()).map_err(|e| failed("type into the console", e))?;
        Ok(Self { number, vm, output })
    }

    /// Passes on what it says, up to its end.
    fn finish(mut self, say: &mut impl FnMut(String)) -> Result<()> {
        let exit = self.vm.wait_timeout(PATIENCE)?;
        let mut said = String::new();
        self.output.read_to_string(&mut said).map_err(|e| failed("read the console", e))?;
        for line in said.lines().filter(|line| !line.trim().is_empty()) {
            say(format!("{}: {}", self.number, line.trim()));
        }
        if exit.is_crash() {
            Err(Error::new(ErrorKind::Guest, format!("fork {}: {exit}", self.number)))
        } else {
            Ok(())
        }
    }
}

fn read_until(output: ConsoleReader, wanted: &str) -> Result<()> {
    let mut lines = BufReader::new(output).lines();
    let is_there = |line: std::io::Result<String>| line.is_ok_and(|line| line.trim() == wanted);
    if lines.any(is_there) {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Guest, format!("the guest ended before it printed {wanted:?}")))
}

fn failed(what: &str, cause: std::io::Error) -> Error {
    Error::new(ErrorKind::Console, format!("cannot {what}")).with_source(cause)
}
