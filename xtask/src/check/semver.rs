//! The version beside the last release's tag, `v` and its version: whether it says what has become of the interface since.

use std::path::Path;
use std::process::Command;

use super::summary::Status;
use crate::cargo;
use crate::exec::{self, Result};
use crate::tools::CARGO_SEMVER_CHECKS;

/// Compares; skipped as long as nothing has been released, and then nothing is installed for it, or without the tool.
pub fn check() -> Status {
    let Some(tag) = last_tag(&cargo::workspace()) else {
        return Status::Skipped("there is no tag of a release to compare with, such as v0.1.0".into());
    };
    match compare(&tag) {
        Ok(Some(())) => Status::Passed,
        Ok(None) => Status::Skipped(CARGO_SEMVER_CHECKS.hint()),
        Err(error) => Status::Failed(format!(
            "since {tag}: {error}; if what it lists is meant, raise the version in Cargo.toml, and say it in CHANGELOG.md"
        )),
    }
}

fn last_tag(repository: &Path) -> Option<String> {
    let mut describe = Command::new("git");
    describe.current_dir(repository).args(["describe", "--tags", "--abbrev=0", "--match", "v[0-9]*"]);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_tag_is_that_of_the_last_release_before_this_commit() {
        let folder = crate::scratch::Scratch::new(&std::env::temp_dir(), "semver").unwrap();
        let git = |arguments: &[&str]| {
            let author = ["-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "tag.gpgSign=false"];
            let mut git = Command::new("git");
            git.current_dir(folder.path()).args(author).args(["-c", "commit.gpgSign=false"]).args(arguments);
            exec::capture(&mut git).unwrap();
        };
        assert_eq!(last_tag(folder.path()), None, "no repository");
        git(&["init", "--quiet"]);
        git(&["commit", "--quiet", "--allow-empty", "--message", "first"]);
        git(&["tag", "vmcell-is-good"]);
        assert_eq!(last_tag(folder.path()), None);
        git(&["tag", "v0.1.0"]);
        git(&["commit", "--quiet", "--allow-empty", "--message", "second"]);
        git(&["tag", "nightly"]);
        assert_eq!(last_tag(folder.path()).as_deref(), Some("v0.1.0"));
    }
}
