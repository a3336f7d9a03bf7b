//! Calls of cargo, and what it says about the programs that it built.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::exec::{self, Context, Error, Result};

/// A program that cargo built.
#[derive(Debug, PartialEq, Eq)]
pub struct Program {
    /// `test`, `example`, ...
    pub kind: String,
    /// The target's name: of the file in tests/ or examples/.
    pub name: String,
    pub path: PathBuf,
}

/// The folder of the workspace.
pub fn workspace() -> PathBuf {
    let xtask = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    let xtask = PathBuf::from(xtask);
    xtask.parent().map(PathBuf::from).unwrap_or(xtask)
}

/// The folder of builds, and of this crate's logs.
pub fn target_dir() -> PathBuf {
    // A relative CARGO_TARGET_DIR is relative to where cargo was called, and joining an absolute one replaces the workspace.
    workspace().join(std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into()))
}

/// The cargo that called us, in the workspace.
pub fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(workspace());
    cargo
}

/// Builds with `args`, shows cargo's progress and diagnostics, and returns the programs that were built.
pub fn build(args: &[&str]) -> Result<Vec<Program>> {
    build_with(args, &[])
}

/// The same, with flags for the compiler, which only `cargo rustc` takes.
pub fn build_with(args: &[&str], flags: &[&str]) -> Result<Vec<Program>> {
    let mut cargo = cargo();
    cargo.args(args).arg("--message-format=json-render-diagnostics").stderr(Stdio::inherit());
    if !flags.is_empty() {
        cargo.arg("--").args(flags);
    }
    let output = cargo.output().context("cannot start cargo")?;
    if !output.status.success() {
        return Err(Error::new(format!("{} failed: {}", exec::show(&cargo), output.status)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).lines().filter_map(program).collect())
}

/// The profile for programs that work.
pub const RELEASE: &str = "release";

/// Builds the launcher.
pub fn build_launcher(profile: &str) -> Result<PathBuf> {
    path_of(&build(&["build", "--profile", profile, "--example", "launch"])?, "launch")
}

/// Builds a program of a package.
pub fn build_program(package: &str, program: &str, profile: &str) -> Result<PathBuf> {
    path_of(&build(&["build", "--profile", profile, "--package", package, "--bin", program])?, program)
}

/// Where the program of this name is, among those that were built.
pub fn path_of(built: &[Program], name: &str) -> Result<PathBuf> {
    let found =
        built.iter().find(|program| ["bin", "example"].contains(&program.kind.as_str()) && program.name == name);
    found.map(|program| program.path.clone()).ok_or_else(|| Error::new(format!("cargo built no program `{name}`")))
}

fn program(line: &str) -> Option<Program> {
    let message: Value = serde_json::from_str(line).ok()?;
    if message.get("reason")? != "compiler-artifact" {
        return None;
    }
    let target = message.get("target")?;
    let text = |value: &Value| value.as_str().map(String::from);
    Some(Program {
        kind: text(target.get("kind")?.get(0)?)?,
        name: text(target.get("name")?)?,
        path: text(message.get("executable")?)?.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_about_a_program_is_read() {
        let line = r#"{"reason":"compiler-artifact","target":{"kind":["test"],"name":"kvm_vcpu"},"executable":"/t/kvm_vcpu-1"}"#;
        let program = program(line).unwrap();
        assert_eq!((program.kind.as_str(), program.name.as_str()), ("test", "kvm_vcpu"));
    }

    #[test]
    fn other_messages_are_passed_over() {
        for line in [
            "",
            "not json",
            r#"{"reason":"build-finished","success":true}"#,
            r#"{"reason":"compiler-artifact","target":{"kind":["lib"],"name":"x"},"executable":null}"#,
        ] {
            assert_eq!(program(line), None, "{line}");
        }
    }
}
