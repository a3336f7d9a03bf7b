//! `cargo xtask fuzz`: one fuzz target for as long as wanted.
//!
//! libFuzzer comes as source in a crate, and the compiler's coverage is asked for by flags that any toolchain knows, so that
//! all it takes is a C++ compiler. Without one, the target gets inputs by chance.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

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
    if !["c++", "g++", "clang++"].iter().any(|compiler| exec::exists(compiler)) {
        return Ok(Some("libFuzzer takes a C++ compiler, and there is none".into()));
    }
    let triple = host_triple()?;
    let mut build = cargo();
    build.args(["build", "--release", "--manifest-path", MANIFEST, "--target-dir", "fuzz/target"]);
    build.args(["--target", &triple, "--bin", &options.target]);
    // With --target, the flags are not for what runs while building.
    build.env("RUSTFLAGS", COVERAGE.join(" "));
    if let Err(error) = exec::run(&mut build) {
        return Ok(Some(error.to_string()));
    }
    println!("guided by coverage, for {} s", options.seconds);
    let fuzz = workspace().join("fuzz");
    let folder = |name: &str| -> Result<PathBuf> {
        let folder = fuzz.join(name).join(&options.target);
        fs::create_dir_all(&folder).context(folder.display())?;
        Ok(folder)
    };
    let (corpus, seeds, artifacts) = (folder("corpus")?, folder("seeds")?, folder("artifacts")?);
    let mut target = Command::new(fuzz.join("target").join(triple).join("release").join(&options.target));
    target.arg(format!("-max_total_time={}", options.seconds)).arg(format!("-max_len={MOST_BYTES}"));
    target.arg(format!("-timeout={PATIENCE}")).arg(format!("-artifact_prefix={}/", artifacts.display()));
    target.arg("-print_final_stats=1").arg(corpus).arg(seeds);
    exec::run(&mut target)?;
    Ok(None)
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
