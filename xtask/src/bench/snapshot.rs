//! `cargo xtask bench snapshot`: what snapshots, forks and their files take. The program is `benches/snapshot`.

use super::scale::run_program;
use crate::args::SnapshotOptions;
use crate::cargo;
use crate::exec::Result;

/// As programs are built that are measured.
const PROFILE: &str = "tuned";

/// Builds the program and the launcher, which it starts as well, and runs it; returns the exit status.
pub fn run(options: &SnapshotOptions) -> Result<u8> {
    let launcher = cargo::build_launcher(PROFILE)?;
    run_program("snapshot", "snapshot", options.forks, &[("VMCELL_LAUNCH", &launcher)])
}
