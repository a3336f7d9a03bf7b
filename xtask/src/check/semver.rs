//! The version beside the last tag: whether it says what has become of the interface since.

use std::process::Command;

use super::summary::Status;
use crate::cargo;
use crate::exec::{self, Result};
use crate::tools::CARGO_SEMVER_CHECKS;

/// Compares; skipped as long as nothing has been released, or without the tool.
pub fn check() -> Status {
    let Some(tag) = last_tag() else { return Status::Skipped("there is no tag to compare with".into()) };
    match compare(&tag) {
        Ok(Some(())) => Status::Passed,
        Ok(None) => Status::Skipped(CARGO_SEMVER_CHECKS.hint()),
        Err(error) => Status::Failed(format!("since {tag}: {error}")),
    }
}

fn last_tag() -> Option<String> {
    let mut describe = Command::new("git");
    describe.current_dir(cargo::workspace()).args(["describe", "--tags", "--abbrev=0"]);
    exec::capture_text(&mut describe).ok().map(|tag| tag.trim().to_owned())
}

/// `None` without the tool.
fn compare(tag: &str) -> Result<Option<()>> {
    let Some(program) = CARGO_SEMVER_CHECKS.find_or_install()? else { return Ok(None) };
    let mut compare = Command::new(program);
    compare.current_dir(cargo::workspace()).args(["semver-checks", "--package", "vmcell", "--baseline-rev", tag]);
    compare.env("CARGO_TARGET_DIR", cargo::target_dir().join("xtask/semver"));
    exec::run(&mut compare).map(Some)
}
