//! What a nightly toolchain finds in the unit tests: by Miri, and by the sanitizers of addresses and of threads.

use std::process::Command;
use std::time::{Duration, Instant};

use super::count::count_tests;
use super::summary::{Status, Summary};
use crate::cargo;
use crate::exec::{self, Context, Result};

/// The tests that Miri runs, by the beginning of their names: what they call is neither the kernel's nor too much for an interpreter.
const INTERPRETED: &[&str] =
    &["event::wake_set", "ffi::objects", "ffi::slot", "limit::", "memory::host", "memory::lease", "block::tag"];
/// Properties are tried with fewer values, since Miri takes a thousand times as long.
const CASES: &str = "8";

/// The parts of the toolchain that do not come with it.
const COMPONENTS: &[&str] = &["miri", "rust-src"];

/// A guest's memory is shared with the guest, so that its accesses race by design; each is volatile or atomic, and of a number that is
/// looked at once.
const RACES_BY_DESIGN: &str = "race:vm_memory::\nrace:copy_slice\n";

/// What the sanitizer of threads cannot run: it has a thread of its own, which a jail refuses, and takes ten times the CPU time, which turns
/// are held to.
const NOT_BY_THREADS: &[&str] = &["confine::jail", "requests_of_4_gib", "thousands_of_sinks"];

/// They hold turns to their time, and a sanitizer makes each step of one several times as long.
const TIMED: [&str; 4] = ["--skip", "one_that_always_has_more_to_do", "--skip", "keeps_to_the_time_of_a_turn"];

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Runs all of them, which takes a quarter of an hour.
pub fn run(summary: &mut Summary) {
    if let Some(reason) = missing() {
        return summary.add("Miri, sanitizers", Status::Skipped(reason), Duration::ZERO);
    }
    let mut miri = nightly("miri");
    miri.args(["miri", "test", "--lib", "--"]).args(INTERPRETED).env("PROPTEST_CASES", CASES);
    // The host's clocks are there; a handle of C's is a number.
    miri.env("MIRIFLAGS", "-Zmiri-disable-isolation -Zmiri-permissive-provenance");
    tests(summary, "Miri", &mut miri);
    let mut addresses = nightly("asan");
    addresses.args(["test", "--lib", "--target", TARGET]).env("RUSTFLAGS", "-Zsanitizer=address");
    // Tests of what is abandoned leak on purpose.
    addresses.env("ASAN_OPTIONS", "detect_leaks=0").arg("--").args(TIMED);
    tests(summary, "sanitizer of addresses", &mut addresses);
    if let Err(error) = threads(summary) {
        summary.add("sanitizer of threads", Status::Failed(error.to_string()), Duration::ZERO);
    }
}

/// With the standard library built anew: otherwise its locks are not seen.
fn threads(summary: &mut Summary) -> Result<()> {
    let suppressions = cargo::target_dir().join("xtask/races");
    std::fs::write(&suppressions, RACES_BY_DESIGN).context(suppressions.display())?;
    let mut threads = nightly("tsan");
    threads.args(["test", "--lib", "--target", TARGET, "-Zbuild-std"]).env("RUSTFLAGS", "-Zsanitizer=thread");
    threads.env("TSAN_OPTIONS", format!("suppressions={}", suppressions.display()));
    threads.arg("--").args(TIMED).args(NOT_BY_THREADS.iter().flat_map(|test| ["--skip", test]));
    tests(summary, "sanitizer of threads", &mut threads);
    Ok(())
}

fn tests(summary: &mut Summary, name: &str, command: &mut Command) {
    println!("\n== {name}");
    let began = Instant::now();
    let (status, passed) = count_tests(command).unwrap_or_else(|error| (Status::Failed(error.to_string()), 0));
    summary.add_all(name, status, began.elapsed(), passed);
}

/// Why nothing of this can be run here.
fn missing() -> Option<String> {
    let hint = |what: &str| format!("{what}; run: rustup toolchain install nightly -c {}", COMPONENTS.join(" -c "));
    let mut list = Command::new("rustup");
    list.args(["component", "list", "--toolchain", "nightly", "--installed"]);
    let Ok(installed) = exec::capture_text(&mut list) else { return Some(hint("there is no nightly toolchain")) };
    let is_there = |component: &&&str| installed.lines().any(|line| line.starts_with(**component));
    let absent = COMPONENTS.iter().find(|component| !is_there(component))?;
    Some(hint(&format!("the nightly toolchain has no {absent}")))
}

/// The nightly toolchain's cargo, whose builds are apart from others.
fn nightly(folder: &str) -> Command {
    let mut command = Command::new("rustup");
    command.current_dir(cargo::workspace()).args(["run", "nightly", "cargo"]);
    for variable in ["RUSTUP_TOOLCHAIN", "CARGO", "RUSTC", "RUSTDOC", "RUSTFLAGS", "RUSTDOCFLAGS"] {
        command.env_remove(variable);
    }
    // Under a sanitizer, a backtrace of a panic that a test wants takes longer than the test waits.
    command.env("RUST_BACKTRACE", "0");
    command.env("CARGO_TARGET_DIR", cargo::target_dir().join("xtask").join(folder));
    command
}
