//! `cargo xtask fuzz`: one fuzz target for as long as wanted; and all of them for some seconds each, for `cargo xtask test`.
//!
//! libFuzzer comes as source in a crate, and the compiler's coverage is asked for by flags that any toolchain knows, so that
//! all it takes is a C++ compiler. Without one, the target gets inputs by chance.

use std::fs;
use std::num::NonZero;
use std::panic::resume_unwind;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::args::FuzzOptions;
use crate::cargo::{cargo, workspace};
use crate::exec::{self, Context, Error, Result};

/// The workspace of the fuzz targets.
pub const MANIFEST: &str = "fuzz/Cargo.toml";

/// How the compiler counts which branches are taken and what is compared, and checks arithmetic as in tests.
const COVERAGE: &[&str] = &[
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Ccodegen-units=1",
    "--cfg=fuzzing",
];

/// The longest input in bytes: some hundred steps.
const MOST_BYTES: u32 = 2048;
/// An input that takes more seconds than this counts as one that hangs.
const PATIENCE: u32 = 20;

/// Runs the target; returns the exit status.
pub fn run(options: &FuzzOptions) -> Result<u8> {
    let known = targets()?;
    if !known.contains(&options.target) {
        let allowed = known.join(", ");
        return Err(Error::new(format!("there is no fuzz target `{}`; allowed: {allowed}", options.target)));
    }
    let Some(why_not) = guided(options)? else { return Ok(0) };
    println!("by chance, without coverage: {why_not}");
    by_chance(options).map(|()| 0)
}

fn targets() -> Result<Vec<String>> {
    let folder = workspace().join("fuzz/fuzz_targets");
    let entries = fs::read_dir(&folder).context(folder.display())?.flatten();
    let names = entries.filter_map(|entry| Some(entry.file_name().to_str()?.strip_suffix(".rs")?.to_owned()));
    let mut names: Vec<String> = names.collect();
    names.sort();
    Ok(names)
}

/// Runs the target guided by coverage; if that cannot be, says why not.
fn guided(options: &FuzzOptions) -> Result<Option<String>> {
    if let Some(why) = why_not_guided() {
        return Ok(Some(why));
    }
    if let Err(error) = build(&["--bin", &options.target]) {
        return Ok(Some(error.to_string()));
    }
    println!("guided by coverage, for {} s", options.seconds);
    exec::run(&mut fuzzer(&options.target, options.seconds, Choices::New)?)?;
    Ok(None)
}

/// Why coverage cannot guide a target on this machine, if so.
pub fn why_not_guided() -> Option<String> {
    let compilers = ["c++", "g++", "clang++"];
    let found = compilers.iter().any(|compiler| exec::exists(compiler));
    (!found).then(|| "libFuzzer takes a C++ compiler, and there is none".into())
}

/// Builds targets with coverage; cargo's arguments say which ones.
fn build(which: &[&str]) -> Result<()> {
    let mut build = cargo();
    build.args(["build", "--release", "--locked", "--manifest-path", MANIFEST, "--target-dir", "fuzz/target"]);
    build.args(["--target", &host_triple()?]).args(which);
    // With --target, the flags are not for what runs while building.
    build.env("RUSTFLAGS", COVERAGE.join(" "));
    exec::run(&mut build)
}

/// Which way the fuzzer goes from the seeds.
#[derive(Clone, Copy)]
pub enum Choices {
    /// Another one each time, so that more is found the longer it is run.
    New,
    /// The same one each time, so that what fails is a fault of the change.
    Same,
}

/// A target that was built, to be run for so long.
fn fuzzer(target: &str, seconds: u32, choices: Choices) -> Result<Command> {
    let fuzz = workspace().join("fuzz");
    let folder = |name: &str| -> Result<PathBuf> {
        let folder = fuzz.join(name).join(target);
        fs::create_dir_all(&folder).context(folder.display())?;
        Ok(folder)
    };
    let (corpus, seeds, artifacts) = (folder("corpus")?, folder("seeds")?, folder("artifacts")?);
    let mut command = Command::new(fuzz.join("target").join(host_triple()?).join("release").join(target));
    command.arg(format!("-max_total_time={seconds}")).arg(format!("-max_len={MOST_BYTES}"));
    command.arg(format!("-timeout={PATIENCE}")).arg(format!("-artifact_prefix={}/", artifacts.display()));
    if let Choices::Same = choices {
        command.arg("-seed=1");
    }
    command.arg("-print_final_stats=1").arg(corpus).arg(seeds);
    Ok(command)
}

/// How a target did in a run of all of them.
pub struct Outcome {
    pub target: String,
    pub result: Result<()>,
    pub took: Duration,
}

/// Runs all targets guided by coverage, each for so many seconds, as many at once as this machine has CPUs.
///
/// # Errors
/// If they cannot be built.
pub fn each(seconds: u32, choices: Choices) -> Result<Vec<Outcome>> {
    let targets = targets()?;
    build(&["--bins"])?;
    let next = AtomicUsize::new(0);
    let work = || {
        let mut outcomes = Vec::new();
        while let Some(target) = targets.get(next.fetch_add(1, Ordering::Relaxed)) {
            let began = Instant::now();
            let result = attempt(target, seconds, choices);
            outcomes.push(Outcome { target: target.clone(), result, took: began.elapsed() });
        }
        outcomes
    };
    let count = thread::available_parallelism().map_or(1, NonZero::get).min(targets.len());
    let mut outcomes: Vec<_> = thread::scope(|scope| {
        let workers: Vec<_> = (0..count).map(|_| scope.spawn(work)).collect();
        let joined = workers.into_iter().map(|worker| worker.join().unwrap_or_else(|panic| resume_unwind(panic)));
        joined.flatten().collect()
    });
    outcomes.sort_by(|one, other| one.target.cmp(&other.target));
    Ok(outcomes)
}

/// Runs one target; what it says is shown if it fails.
fn attempt(target: &str, seconds: u32, choices: Choices) -> Result<()> {
    let output = fuzzer(target, seconds, choices)?.stdin(Stdio::null()).output().context(target)?;
    let said = String::from_utf8_lossy(&output.stderr);
    let inputs = inputs(&said);
    if output.status.success() && inputs > 0 {
        println!("{target}: {inputs} inputs");
        return Ok(());
    }
    Err(Error::new(format!("{}; it is to be repeated with what is in fuzz/artifacts\n{said}", output.status)))
}

/// How many inputs a target ran, as libFuzzer says at the end.
fn inputs(said: &str) -> u64 {
    let count = said.lines().find_map(|line| line.strip_prefix("stat::number_of_executed_units:"));
    count.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
}

fn by_chance(options: &FuzzOptions) -> Result<()> {
    let mut sweep = cargo();
    sweep.args(["run", "--release", "--manifest-path", MANIFEST, "--no-default-features", "--example", "sweep", "--"]);
    exec::run(sweep.arg(&options.target).arg(options.seconds.to_string()))
}

fn host_triple() -> Result<String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = exec::capture_text(Command::new(rustc).current_dir(workspace()).arg("-vV"))?;
    let triple = version.lines().find_map(|line| line.strip_prefix("host: "));
    triple.map(String::from).ok_or_else(|| Error::new("rustc does not say which host it is for"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_are_counted_as_libfuzzer_says() {
        let said = "Done 41 runs in 1 second(s)\nstat::number_of_executed_units: 41\nstat::average_exec_per_sec: 20\n";
        assert_eq!((inputs(said), inputs("INFO: nothing\n")), (41, 0));
    }
}
