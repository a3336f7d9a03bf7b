//! One run of one contender, by the row's kind.

mod disk;
mod frames;
mod runner;
mod sample;
mod whole;

pub use runner::Runner;
pub use sample::Sample;

use super::contender::Contender;
use super::rows::{Load, Row};
use crate::exec::{Error, Result};

/// One run.
pub fn once(runner: &mut Runner<'_>, row: &Row, contender: &Contender) -> Result<Sample> {
    runner.count();
    match row.load {
        Load::FirstByte => whole::first_byte(runner, contender),
        Load::Memory => whole::memory(runner, contender),
        Load::Disk(load) => disk::run(runner, load, contender),
        Load::Send(size) => frames::send(runner, size, contender),
        Load::Boot => Err(Error::new("it runs in the nested host only")),
        Load::Api(_) => Err(Error::new("it has a command of its own")),
        Load::Receive(size) => frames::receive(runner, size, contender),
    }
}
