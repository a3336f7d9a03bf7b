//! The house's order: rooms use rooms of lower rank only, files form no circle, and few rooms may be unsafe.
//!
//! The sources are read by a parser. Code for tests and documentation is left out. See `reader_test` for what is understood.
//!
//! Not seen: what a call needs without naming it (a method or a field of a value whose type is not written there), names
//! that a macro makes up, and names inside format strings.

mod attributes;
mod program;
mod reader;
#[cfg(test)]
mod reader_test;
mod resolve;
mod rules;
mod tokens;

use std::path::{Path, PathBuf};

use program::{Program, files};
use reader::read;
use rules::{House, circles};

const HOUSE: House<'_> = House {
    // Rank 0 has two lines and rank 1 three: `sys` reports failures by `error`, `memory` reads the part of `config` that
    // describes it, and `event` lends buffers of `memory`.
    ranks: &[
        &["error", "logging", "meter"],
        &["sys"],
        &["config"],
        &["confine"],
        &["memory"],
        &["event"],
        &["kvm", "bus", "limit", "save"],
        &["arch", "legacy", "virtio"],
        &["host", "block", "net", "rng", "balloon", "vsock", "console"],
        &["board", "metadata", "network", "secret", "volume"],
        &["vm"],
        &["ffi"],
    ],
    unsafe_rooms: &["sys", "memory", "kvm", "ffi", "volume/cipher/wide.rs"],
    apart: "testing",
};

/// Circles that are still to be undone. The tests fail if one is gone or has changed, so that this list empties itself.
const KNOWN_CIRCLES: &[&[&str]] = &[];

/// The programs beside the library.
const PROGRAMS: [&str; 5] =
    ["xtask/src", "examples/launch", "examples/supervisor", "benches/floor/src", "platform/init"];
/// Programs whose parts are a library, so that others can try them.
const PROGRAMS_WITH_LIBRARY: [&str; 2] = ["firecracker/src", "platform/src"];

/// No file may be longer.
const MOST_LINES: usize = 800;
/// What a file should stay below; longer ones are listed by `cargo test --test layering -- --nocapture`.
const AIMED_LINES: usize = 400;

fn repository(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)
}

fn library() -> Program {
    read(&files(&repository("src")), "lib.rs")
}

/// A program beside the library; its files follow the same rule.
fn program(folder: &str) -> Program {
    read(&files(&repository(folder)), "main.rs")
}

fn assert_none(wrong: &[String]) {
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// Fails for circles that are not known, and for known ones that are not there.
fn assert_circles(program: &Program, known: &[&[&str]]) {
    let found = circles(program);
    let mut wrong: Vec<String> = found
        .iter()
        .filter(|circle| !known.iter().any(|known| *known == circle.files))
        .map(|circle| format!("a circle of {}:\n  {}", circle.files.join(", "), circle.uses.join("\n  ")))
        .collect();
    let gone = known.iter().filter(|known| !found.iter().any(|circle| circle.files == **known));
    wrong.extend(gone.map(|files| format!("no such circle any more, remove it from the list: {}", files.join(", "))));
    assert_none(&wrong);
}

#[test]
fn the_reader_understands_every_file() {
    let programs = PROGRAMS.map(|folder| (folder, "main.rs"));
    let libraries = PROGRAMS_WITH_LIBRARY.map(|folder| (folder, "lib.rs"));
    for (folder, root) in programs.into_iter().chain([("src", "lib.rs")]).chain(libraries) {
        let mut files = files(&repository(folder));
        if root == "lib.rs" {
            // Programs of their own, which use the library as others do.
            files.retain(|file, _| file != "main.rs" && !file.starts_with("bin/"));
        }
        let program = read(&files, root);
        assert_none(&program.unreadable);
        let unread = files.keys().filter(|file| !program.modules.iter().any(|module| module.file == **file));
        let unread: Vec<String> = unread.filter(|file| !file.ends_with("_test.rs")).cloned().collect();
        assert_eq!(unread, [""; 0], "files that no module in {folder} is made of");
    }
}

#[test]
fn rooms_use_lower_rooms_only() {
    assert_none(&HOUSE.forbidden_uses(&library()));
}

#[test]
fn files_of_the_library_form_no_circle() {
    assert_circles(&library(), KNOWN_CIRCLES);
}

#[test]
fn files_of_a_program_form_no_circle() {
    for folder in PROGRAMS.into_iter().chain(["tests/layering"]) {
        assert_circles(&program(folder), &[]);
    }
    for folder in PROGRAMS_WITH_LIBRARY {
        assert_circles(&read(&files(&repository(folder)), "lib.rs"), &[]);
    }
}

#[test]
fn only_some_rooms_are_unsafe() {
    assert_none(&HOUSE.forbidden_unsafe(&library()));
}

#[test]
#[allow(clippy::print_stdout, reason = "a report, shown on request")]
fn no_file_is_longer_than_eight_hundred_lines() {
    let mut wrong = Vec::new();
    for folder in ["src", "xtask/src", "tests", "examples", "benches", "firecracker", "platform"] {
        for (name, text) in files(&repository(folder)) {
            let lines = text.lines().count();
            if lines > AIMED_LINES {
                println!("{folder}/{name} has {lines} lines; aim for {AIMED_LINES}");
            }
            if lines > MOST_LINES {
                wrong.push(format!("{folder}/{name} has {lines} lines, allowed are {MOST_LINES}"));
            }
        }
    }
    assert_none(&wrong);
}
