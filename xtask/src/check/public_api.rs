//! Everything that is public, beside the list of it that is committed: no change of the interface goes unseen.

use std::process::Command;

use super::summary::Status;
use crate::cargo;
use crate::exec::{self, Context, Error, Result};
use crate::tools::CARGO_PUBLIC_API;

/// Where the list is, in the workspace.
const LIST: &str = "docs/public-api.txt";
/// Beside these there is `capi`, whose interface is the header.
const FEATURES: &str = "log,metadata,network,save,secret,serde,test-util,volume,wireguard";
/// Differences that are shown.
const SHOWN: usize = 20;

/// Compares; skipped if this machine cannot list what is public.
pub fn check() -> Status {
    match found() {
        Ok(Some(found)) => compare(&found).map_or_else(|error| Status::Failed(error.to_string()), |()| Status::Passed),
        Ok(None) => Status::Skipped(format!("{}, and it needs Rust's nightly toolchain", CARGO_PUBLIC_API.hint())),
        Err(error) => Status::Skipped(format!("what is public cannot be listed here: {error}")),
    }
}

/// What is public now. `None` without the tool.
fn found() -> Result<Option<String>> {
    exec::capture(Command::new("rustup").args(["run", "nightly", "rustc", "--version"]))?;
    let Some(program) = CARGO_PUBLIC_API.find_or_install()? else { return Ok(None) };
    let mut list = Command::new(program);
    list.current_dir(cargo::workspace()).args(["public-api", "--package", "vmcell", "-sss", "--features", FEATURES]);
    // Apart from other builds, which another toolchain makes.
    list.env("CARGO_TARGET_DIR", cargo::target_dir().join("xtask/public-api"));
    // The toolchain of the cargo that called us; the tool chooses its own.
    for variable in ["RUSTUP_TOOLCHAIN", "CARGO", "RUSTC", "RUSTDOC", "RUSTFLAGS", "RUSTDOCFLAGS"] {
        list.env_remove(variable);
    }
    exec::capture_text(&mut list).map(Some)
}

fn compare(found: &str) -> Result<()> {
    let path = cargo::workspace().join(LIST);
    if std::env::var_os("VMCELL_UPDATE").is_some() {
        return std::fs::write(&path, found).context(LIST);
    }
    let listed = std::fs::read_to_string(&path).context(LIST)?;
    let changes = changes(&listed, found);
    if changes.is_empty() {
        return Ok(());
    }
    Err(Error::new(format!(
        "what is public is not what {LIST} says; if that is meant, say it in CHANGELOG.md, and write the list anew by \
         `VMCELL_UPDATE=1 cargo xtask test`: {} changes, such as\n{}",
        changes.len(),
        changes.iter().take(SHOWN).cloned().collect::<Vec<_>>().join("\n")
    )))
}

/// Lines that went, and lines that came.
fn changes(listed: &str, found: &str) -> Vec<String> {
    let missing = |lines: &str, from: &str, sign: char| -> Vec<String> {
        let known: std::collections::HashSet<&str> = from.lines().collect();
        lines.lines().filter(|line| !known.contains(line)).map(|line| format!("{sign} {line}")).collect()
    };
    [missing(listed, found, '-'), missing(found, listed, '+')].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_went_and_what_came_is_told() {
        assert_eq!(changes("pub fn a()\npub fn b()\n", "pub fn b()\npub fn c()\n"), ["- pub fn a()", "+ pub fn c()"]);
        assert!(changes("pub fn a()\n", "pub fn a()\n").is_empty());
    }
}
