//! The models: the handovers between threads, in one order of their steps after the other.

use std::process::Command;
use std::time::Instant;

use super::count::count_tests;
use super::summary::{Status, Summary};
use crate::cargo;
use crate::exec::{Error, Result};

const NAME: &str = "models of the handovers between threads";

/// Says how many orders each model is tried in.
const VARIABLE: &str = "VMCELL_SCHEDULES";
/// How many orders each model is tried in, which takes less than a minute, and how many with `--long`.
const SCHEDULES: &str = "1000";
const MANY_SCHEDULES: &str = "50000";

/// Builds the unit tests with the checker's threads in place of the host's, and runs those that are models.
pub fn run(long: bool, summary: &mut Summary) {
    let usual = if long { MANY_SCHEDULES } else { SCHEDULES };
    let schedules = std::env::var(VARIABLE).unwrap_or_else(|_| usual.to_owned());
    println!("\n== {NAME}: {schedules} orders of steps each");
    let began = Instant::now();
    let (status, passed) = tried(&schedules).unwrap_or_else(|error| (Status::Failed(error.to_string()), 0));
    summary.add_all(NAME, status, began.elapsed(), passed);
}

fn tried(schedules: &str) -> Result<(Status, u64)> {
    // By flags for this one crate, so that what it depends on is built once for all tests.
    let programs =
        cargo::build_with(&["rustc", "--all-features", "--lib", "--profile", "test"], &["--cfg", "shuttle"])?;
    let program = programs.into_iter().find(|program| program.kind == "lib");
    let program = program.ok_or_else(|| Error::new("cargo built no unit tests"))?;
    let (status, passed) = count_tests(Command::new(program.path).arg("models::").env(VARIABLE, schedules))?;
    if status == Status::Passed && passed == 0 {
        return Err(Error::new("no model was found"));
    }
    Ok((status, passed))
}
