//! The checks that need no guest: format, lints, documentation, unit tests, licences.

use std::process::Command;
use std::time::{Duration, Instant};

use super::count::count_tests;
use super::models;
use super::nightly;
use super::package;
use super::public_api;
use super::semver;
use super::summary::{Status, Summary};
use crate::cargo::cargo;
use crate::exec::{self, Result};
use crate::fuzz::Choices;
use crate::tools::CARGO_DENY;

/// A check by its name, which runs with more load if it is told to.
type Check = (&'static str, fn(bool, &mut Summary));

const CHECKS: [Check; 15] = [
    ("format", |_, summary| step(summary, "format", &["fmt", "--all", "--check"], &[])),
    ("clippy", |_, summary| step(summary, "clippy", CLIPPY, &[])),
    ("docs", |_, summary| {
        step(
            summary,
            "docs",
            &["doc", "--workspace", "--all-features", "--no-deps"],
            &[("RUSTDOCFLAGS", "-D warnings")],
        )
    }),
    ("unit", |_, summary| unit_tests(summary)),
    ("volumes", |_, summary| volumes(summary)),
    ("secrets", |_, summary| secrets(summary)),
    ("edge", |_, summary| edge(summary)),
    (PAGE, |_, summary| page(summary)),
    ("models", models::run),
    (NIGHTLY, |_, summary| nightly::run(summary)),
    ("package", |_, summary| packaged(summary)),
    ("interface", |_, summary| public_interface(summary)),
    ("version", |_, summary| version(summary)),
    ("fuzz", fuzz_targets),
    ("licences", |_, summary| licences(summary)),
];

/// Needs a browser.
pub const PAGE: &str = "page";

/// Takes a quarter of an hour, so it runs by its name or with `--long`.
const NIGHTLY: &str = "nightly";

const CLIPPY: &[&str] = &["clippy", "--workspace", "--all-targets", "--all-features", "--", "-D", "warnings"];

/// Runs all of them, or the `only` one, each regardless of the others' results.
///
/// # Errors
/// If there is none of that name.
pub fn run(only: Option<&str>, long: bool, summary: &mut Summary) -> Result<()> {
    let is_wanted = |name| only.map_or(long || name != NIGHTLY, |only| name == only);
    let wanted: Vec<_> = CHECKS.iter().filter(|(name, _)| is_wanted(*name)).collect();
    if wanted.is_empty() {
        let names: Vec<_> = CHECKS.iter().map(|(name, _)| *name).collect();
        let only = only.unwrap_or_default();
        return Err(exec::Error::new(format!("there is no check `{only}`; allowed: {}", names.join(", "))));
    }
    wanted.iter().for_each(|(_, check)| check(long, summary));
    Ok(())
}

fn step(summary: &mut Summary, name: &str, args: &[&str], env: &[(&str, &str)]) {
    let mut command = cargo();
    command.args(args).envs(env.iter().copied());
    println!("\n== {name}: cargo {}", args.join(" "));
    let began = Instant::now();
    let status = status_of(exec::run(&mut command));
    summary.add(name, status, began.elapsed());
}

fn status_of(result: Result<()>) -> Status {
    match result {
        Ok(()) => Status::Passed,
        Err(error) => Status::Failed(error.to_string()),
    }
}

fn unit_tests(summary: &mut Summary) {
    tests(summary, "unit, doc and layering tests", &["test", "--workspace", "--no-fail-fast"], &[]);
}

/// Beside a program that is there on this machine alone.
fn volumes(summary: &mut Summary) {
    tests(
        summary,
        "volumes and cryptsetup",
        &["test", "--workspace", "--test", "volume_cryptsetup", "--", "--ignored"],
        &[],
    );
}

/// Beside another such program.
fn secrets(summary: &mut Summary) {
    tests(summary, "secrets and age", &["test", "--workspace", "--test", "secret_example", "--", "--ignored"], &[]);
}

/// Beside an ACME server, and clients.
fn edge(summary: &mut Summary) {
    // With a test of the library, which has none to run: so the features are those of the other checks, and nothing is built again.
    let args = ["test", "--workspace", "--test", "edge", "--test", "header", "--", "--ignored"];
    tests(summary, "the edge and pebble", &args, &[]);
}

/// In a browser.
fn page(summary: &mut Summary) {
    if !exec::exists("chromedriver") {
        let why = "there is no chromedriver; on Debian, apt-get install chromium-driver".to_owned();
        return summary.add("the page and the edge in Chromium", Status::Skipped(why), Duration::ZERO);
    }
    // One at a time: each has a browser of its own.
    let args = ["test", "--workspace", "--lib", "browser_test::", "--", "--ignored", "--test-threads", "1"];
    tests(summary, "the page and the edge in Chromium", &args, &[]);
}

fn packaged(summary: &mut Summary) {
    println!("\n== package: cargo package, its tests, and two versions in one program");
    let began = Instant::now();
    summary.add("package", status_of(package::check()), began.elapsed());
}

fn public_interface(summary: &mut Summary) {
    println!("\n== public interface: cargo public-api");
    let began = Instant::now();
    summary.add("public interface", public_api::check(), began.elapsed());
}

fn version(summary: &mut Summary) {
    println!("\n== version: cargo semver-checks");
    let began = Instant::now();
    summary.add("version", semver::check(), began.elapsed());
}

/// The fuzz targets are a workspace of their own, so that their dependencies are not the library's.
fn fuzz_targets(long: bool, summary: &mut Summary) {
    let manifest = ["--manifest-path", crate::fuzz::MANIFEST];
    let began = Instant::now();
    if let Err(error) = exec::capture(cargo().args(["fetch", "--quiet", "--locked"]).args(manifest)) {
        return summary.add("fuzz", not_fetched(&error.to_string()), began.elapsed());
    }
    step(summary, "fuzz: format", &[&["fmt"][..], &manifest, &["--check"]].concat(), &[]);
    // Without libFuzzer, which takes a C++ compiler and a minute.
    let plain = [&manifest[..], &["--no-default-features", "--locked"]].concat();
    step(summary, "fuzz: clippy", &[&["clippy", "--all-targets"], &plain[..], &["--", "-D", "warnings"]].concat(), &[]);
    let (seconds, choices) = if long { (300, Choices::New) } else { (10, Choices::Same) };
    let unguided = crate::fuzz::why_not_guided();
    // What is guided by coverage begins with the seeds, so the tests that try them would only build all of it once more.
    if long || unguided.is_some() {
        let by_chance = if unguided.is_some() { seconds } else { 1 };
        let args = [&["test", "--no-fail-fast"], &plain[..]].concat();
        tests(summary, "fuzz: seeds and chance", &args, &[("VMCELL_FUZZ_SECONDS", &by_chance.to_string())]);
    }
    match unguided {
        Some(why) => summary.note(format!("the fuzz targets ran by chance, without coverage: {why}")),
        None => fuzz_by_coverage(seconds, choices, summary),
    }
}

fn fuzz_by_coverage(seconds: u32, choices: Choices, summary: &mut Summary) {
    println!("\n== fuzz: each target for {seconds} s, guided by coverage");
    let began = Instant::now();
    match crate::fuzz::each(seconds, choices) {
        Ok(outcomes) => outcomes.into_iter().for_each(|outcome| {
            summary.add(&format!("fuzz: {}", outcome.target), status_of(outcome.result), outcome.took);
        }),
        Err(error) => summary.add("fuzz: build", Status::Failed(error.to_string()), began.elapsed()),
    }
}

/// Without a network there is nothing to run. Anything else is a fault of the change, such as a lock file left behind.
fn not_fetched(error: &str) -> Status {
    if ["download", "offline mode"].iter().any(|sign| error.contains(sign)) {
        return Status::Skipped(format!("what the fuzz targets depend on cannot be had: {error}"));
    }
    Status::Failed(format!(
        "{error}\nif fuzz/Cargo.lock is out of date, write it anew and commit it: cargo update --workspace --manifest-path {}",
        crate::fuzz::MANIFEST
    ))
}

fn tests(summary: &mut Summary, name: &str, args: &[&str], env: &[(&str, &str)]) {
    let mut command = cargo();
    command.args(args).envs(env.iter().copied());
    println!("\n== {name}: cargo {}", args.join(" "));
    let began = Instant::now();
    let (status, passed) = match count_tests(&mut command) {
        Ok((status, passed)) => (status, passed),
        Err(error) => (Status::Failed(error.to_string()), 0),
    };
    summary.add_all(name, status, began.elapsed(), passed);
}

fn licences(summary: &mut Summary) {
    println!("\n== licences, bans, sources: cargo deny");
    let began = Instant::now();
    let status = match CARGO_DENY.find_or_install() {
        Ok(Some(program)) => status_of(["Cargo.toml", crate::fuzz::MANIFEST].iter().try_for_each(|manifest| {
            // Without the advisories: their database is fetched from elsewhere, and a new one is no fault of a change.
            let arguments = ["--manifest-path", manifest, "check", "licenses", "bans", "sources"];
            exec::run(Command::new(&program).current_dir(crate::cargo::workspace()).args(arguments))
        })),
        Ok(None) => Status::Skipped(CARGO_DENY.hint()),
        Err(error) => Status::Failed(error.to_string()),
    };
    summary.add("licences, bans, sources", status, began.elapsed());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_that_there_is_not_is_refused_with_those_that_there_are() {
        let error = run(Some("unt"), false, &mut Summary::default()).unwrap_err().to_string();
        assert!(
            error.starts_with("there is no check `unt`; allowed: format, clippy, docs, unit, volumes, secrets,"),
            "{error}"
        );
    }

    #[test]
    fn a_lock_file_that_is_out_of_date_fails_and_a_missing_network_skips() {
        let stale = "cargo fetch --quiet --locked failed: exit status: 101\n\
                     error: cannot update the lock file fuzz/Cargo.lock because --locked was passed to prevent this\n\
                     help: to generate the lock file without accessing the network, remove the --locked flag and use \
                     --offline instead.";
        let Status::Failed(why) = not_fetched(stale) else { panic!("not a failure") };
        assert!(why.contains("cargo update --workspace --manifest-path fuzz/Cargo.toml"), "{why}");
        for unreachable in [
            "failed to get `arbitrary` as a dependency\n\nCaused by:\n  download of config.json failed",
            "no matching package named `arbitrary` found\nAs a reminder, you're using offline mode (--offline)",
        ] {
            assert!(matches!(not_fetched(unreachable), Status::Skipped(_)), "{unreachable}");
        }
    }
}
