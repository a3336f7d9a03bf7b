//! A micro-VM launcher: one guest, its serial console on standard output, everything else on standard error.
//!
//! Exit status: 0 the guest shut down or reset itself; 1 it failed; 2 bad arguments.
#![allow(clippy::print_stderr, reason = "a program talks to the person who runs it")]

mod describe;
mod options;
mod terminal;

use std::io::Write;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use vmcell::{Error, ErrorKind, Exit};

use crate::describe::{describe, is_on_stdio};
use crate::options::Options;
use crate::terminal::RawTerminal;

const FAILED: u8 = 1;
const BAD_ARGUMENTS: u8 = 2;

fn main() -> ExitCode {
    let options = Options::parse();
    match launch(&options) {
        Ok(None | Some(Exit::Shutdown | Exit::Reset(_))) => ExitCode::SUCCESS,
        Ok(Some(Exit::Failed(error))) => {
            eprintln!("launch: {}", error.chain());
            ExitCode::from(FAILED)
        }
        Ok(Some(Exit::Panicked)) => {
            eprintln!("launch: the guest's kernel panicked");
            ExitCode::from(FAILED)
        }
        Ok(Some(other)) => {
            eprintln!("launch: the guest ended unexpectedly: {other:?}");
            ExitCode::from(FAILED)
        }
        Err(error) => {
            eprintln!("launch: {}", error.chain());
            ExitCode::from(if error.kind() == ErrorKind::InvalidConfig { BAD_ARGUMENTS } else { FAILED })
        }
    }
}

fn launch(options: &Options) -> vmcell::Result<Option<Exit>> {
    let begin = Instant::now();
    let config = describe(options)?;
    if options.print_config {
        config.validate()?;
        let json = config.to_json()?;
        writeln!(std::io::stdout(), "{json}")
            .map_err(|e| Error::new(ErrorKind::Host, "cannot print the description").with_source(e))?;
        return Ok(None);
    }
    let mut builder = config.builder();
    if options.verbose {
        builder = builder.log(|record| eprintln!("launch: {record}\r"));
    }
    let vm = builder.build()?;
    let terminal = RawTerminal::enter(is_on_stdio(&config.console));
    vm.start()?;
    if options.verbose {
        eprintln!("launch: built and started in {} us\r", begin.elapsed().as_micros());
    }
    let exit = vm.wait()?;
    drop(terminal);
    if options.verbose {
        eprintln!("launch: the guest ended after {} ms: {exit:?}", begin.elapsed().as_millis());
    }
    Ok(Some(exit))
}
