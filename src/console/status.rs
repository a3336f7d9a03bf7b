//! What became of the guest's output.

use crate::error::Error;
use crate::legacy::{Counts, OutputBuffer};

/// What became of the bytes that the guest wrote to its console, for each sink.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ConsoleStatus {
    /// The sinks, in the order in which the console names them. A console without output has none.
    pub sinks: Vec<SinkStatus>,
}

/// What became of the bytes that one sink should have got.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct SinkStatus {
    /// What it is, for a person to read: `standard output`, a file's path, `descriptor 7`, `the callback`.
    pub name: String,
    /// How many bytes it got.
    pub delivered: u64,
    /// How many wait to be written to it.
    pub waiting: u64,
    /// How many it missed since it was too slow: they made room for newer ones.
    pub dropped: u64,
    /// How many it missed since writing to it failed.
    pub lost: u64,
    /// How often a file could not be renamed when it had grown too large, and was emptied instead.
    pub failed_rotations: u64,
    /// Why writing to it, or renaming it, failed last. It has worked again since, if more is delivered.
    pub last_error: Option<Error>,
}

impl ConsoleStatus {
    pub(crate) fn of(output: &OutputBuffer) -> Self {
        Self { sinks: output.counts().into_iter().map(SinkStatus::from).collect() }
    }

    /// How many bytes the sinks missed since they were too slow, all together.
    pub fn dropped(&self) -> u64 {
        self.sinks.iter().map(|sink| sink.dropped).fold(0, u64::saturating_add)
    }

    /// How many bytes the sinks missed since writing to them failed, all together.
    pub fn lost(&self) -> u64 {
        self.sinks.iter().map(|sink| sink.lost).fold(0, u64::saturating_add)
    }
}

impl From<Counts> for SinkStatus {
    fn from(counts: Counts) -> Self {
        let Counts { name, delivered, dropped, lost, failed_rotations, waiting, last_error } = counts;
        Self { name, delivered, waiting, dropped, lost, failed_rotations, last_error }
    }
}
