//! `cargo xtask bench snapshot`: what snapshots, forks and their files take. The program is `benches/snapshot`.

use super::scale::run_program;
use crate::args::SnapshotOptions;
use crate::exec::Result;

/// Builds the program and runs it; returns the exit status.
pub fn run(options: &SnapshotOptions) -> Result<u8> {
    run_program("snapshot", "snapshot", options.forks)
}
