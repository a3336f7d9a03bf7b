//! A room uses rooms of lower rank only, and only the rooms that need it may be unsafe.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The rooms of `src/`, lowest first: those of one line never use each other.
const RANKS: &[&[&str]] = &[
    &["error"],
    &["sys", "config"],
    &["memory"],
    &["kvm", "bus"],
    &["arch", "legacy", "virtio"],
    &["block", "net", "console"],
    &["board"],
    &["vm"],
    &["ffi"],
];

/// Rooms that may opt out of `deny(unsafe_code)`.
const UNSAFE_ROOMS: &[&str] = &["sys", "memory", "kvm", "ffi"];

/// The driver's half for tests: used by nobody, uses anybody.
const TESTING: &str = "testing";

fn sources() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("the folder is readable") {
            let path = entry.expect("the entry is readable").path();
            match path.extension() {
                None => folders.push(path),
                Some(extension) if extension == "rs" => found.push(path),
                Some(_) => {}
            }
        }
    }
    found
}

/// The room that a source file belongs to: the first folder below `src`, or the file itself.
fn room(path: &Path) -> String {
    let inside = path.strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).expect("a source of ours");
    let first = inside.iter().next().expect("a name");
    Path::new(first).with_extension("").to_string_lossy().into_owned()
}

fn ranks() -> BTreeMap<&'static str, usize> {
    RANKS.iter().enumerate().flat_map(|(rank, rooms)| rooms.iter().map(move |room| (*room, rank))).collect()
}

/// The rooms that a piece of code names after `crate::`, test modules and documentation left out.
fn uses(text: &str) -> Vec<String> {
    let product = text.split("#[cfg(test)]").next().unwrap_or_default();
    let code = product.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
    let after_crate = code.split("crate::").skip(1);
    after_crate
        .map(|rest| rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>())
        .filter(|name| name.chars().all(|c| c.is_lowercase() || c.is_numeric() || c == '_'))
        .collect()
}

#[test]
fn rooms_use_lower_rooms_only() {
    let ranks = ranks();
    let mut wrong = Vec::new();
    for path in sources() {
        let (own, text) = (room(&path), std::fs::read_to_string(&path).expect("the source is readable"));
        if own == "lib" || own == TESTING || path.to_string_lossy().ends_with("_test.rs") {
            continue;
        }
        let Some(rank) = ranks.get(own.as_str()) else {
            wrong.push(format!("{} is in the room {own}, which has no rank", path.display()));
            continue;
        };
        for used in uses(&text).into_iter().filter(|used| *used != own) {
            match ranks.get(used.as_str()) {
                Some(lower) if lower < rank => {}
                _ => wrong.push(format!("{}: {own} uses {used}", path.display())),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn only_some_rooms_are_unsafe() {
    for path in sources() {
        let text = std::fs::read_to_string(&path).expect("the source is readable");
        let opts_in = text.contains("allow(unsafe_code");
        assert!(!opts_in || UNSAFE_ROOMS.contains(&room(&path).as_str()), "{} opts in to unsafe", path.display());
    }
}

#[test]
fn no_file_is_longer_than_eight_hundred_lines() {
    for path in sources() {
        let lines = std::fs::read_to_string(&path).expect("the source is readable").lines().count();
        assert!(lines <= 800, "{} has {lines} lines", path.display());
    }
}

#[test]
fn the_reader_of_uses_sees_what_it_should() {
    let text = "use crate::sys::{A, b};\n// crate::net::x\nuse crate::Error;\nfn f() { crate::bus::g() }\n#[cfg(test)]\nuse crate::vm;";
    assert_eq!(uses(text), ["sys", "bus"]);
}
