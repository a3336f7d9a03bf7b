//! The program that has the pieces: that of this tree, and the same benches with the library of another revision.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::bench::turn::Turn;
use crate::cargo::{self, workspace};
use crate::exec::{self, Context, Error, Result};

const NAME: &str = "pieces";

/// Builds the benches as `cargo bench` does.
pub fn of_this_tree() -> Result<PathBuf> {
    find(cargo::build(&["bench", "--no-run", "--bench", NAME])?)
}

/// The program of another revision. Only one command at a time has one, because all build it in the same folder.
pub struct Other {
    path: PathBuf,
    _turn: Turn,
}

impl Other {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Builds this tree's benches with a revision's library, and with its versions of what that depends on. Returns the program, and
/// what to call the revision. So a change of the benches is no difference, and a revision that has none can be measured; but its
/// interface must be that which the benches use.
pub fn of_revision(revision: &str) -> Result<(Other, String)> {
    let turn = Turn::wait()?;
    let commit = git(&["rev-parse", "--verify", "--end-of-options", &format!("{revision}^{{commit}}")])?;
    let label: String = commit.chars().take(10).collect();
    let folder = cargo::target_dir().join("xtask/instructions");
    let (source, package) = (folder.join("source"), folder.join("package"));
    extract(&commit, &source)?;
    fs::create_dir_all(&package).context(package.display())?;
    let manifest = |dir: &Path| {
        let path = dir.join("Cargo.toml");
        fs::read_to_string(&path).context(path.display())
    };
    let text = package_of(&manifest(&workspace())?, &manifest(&source)?)?;
    fs::write(package.join("Cargo.toml"), text).context(package.display())?;
    fs::copy(source.join("Cargo.lock"), package.join("Cargo.lock")).context("the revision's Cargo.lock")?;
    let manifest = package.join("Cargo.toml").to_string_lossy().into_owned();
    let target = folder.join("target").to_string_lossy().into_owned();
    eprintln!("bench: building the library of {label}");
    let built = cargo::build(&["build", "--release", "--manifest-path", &manifest, "--target-dir", &target]);
    let path = find(built.context(format_args!("the benches of this tree do not build with the library of {label}"))?)?;
    Ok((Other { path, _turn: turn }, label))
}

fn find(programs: Vec<cargo::Program>) -> Result<PathBuf> {
    let found = programs.into_iter().find(|program| program.name == NAME);
    found.map(|program| program.path).ok_or_else(|| Error::new(format!("cargo built no program `{NAME}`")))
}

fn git(arguments: &[&str]) -> Result<String> {
    let text = exec::capture_text(Command::new("git").current_dir(workspace()).args(arguments))?;
    Ok(text.trim_end().into())
}

/// Puts a commit's files into a folder that holds nothing else.
fn extract(commit: &str, folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).context(folder.display())?;
    }
    fs::create_dir_all(folder).context(folder.display())?;
    let archive = exec::capture(Command::new("git").current_dir(workspace()).args(["archive", commit]))?;
    // All files are new to cargo, which goes by their times, even if the commit is older than the last one that was here.
    exec::filter(Command::new("tar").args(["-x", "--touch", "-C"]).arg(folder), &archive).map(drop)
}

/// The manifest of a package that has this tree's benches as its program. `ours` and `theirs` are the manifests of this tree and
/// of the revision.
fn package_of(ours: &str, theirs: &str) -> Result<String> {
    let line = |key: &str| {
        let found = ours.lines().find(|line| line.split_once(" = ").is_some_and(|(name, _)| name == key));
        found.ok_or_else(|| Error::new(format!("Cargo.toml has no line `{key} = `")))
    };
    let (edition, criterion) = (line("edition")?, line("criterion")?);
    let benches = workspace().join("benches/main.rs");
    Ok(format!(
        "[package]\nname = \"vmcell-{NAME}\"\n{edition}\n\n\
         [[bin]]\nname = \"{NAME}\"\npath = {benches:?}\n\n\
         [dependencies]\nvmcell = {{ path = \"../source\", features = [\"test-util\"] }}\n{criterion}\n\n\
         [workspace]\nresolver = \"3\"\n\n{}",
        profiles(theirs)
    ))
}

/// The sections that say how to compile.
fn profiles(manifest: &str) -> String {
    let mut inside = false;
    let lines = manifest.lines().filter(|line| {
        if line.starts_with('[') {
            inside = line.starts_with("[profile.");
        }
        inside
    });
    lines.map(|line| format!("{line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_package_compiles_as_the_revision_does() {
        let ours = "edition = \"2024\"\n[dev-dependencies]\ncriterion = \"1\"\n[profile.release]\nlto = true\n";
        let theirs = "[package]\nname = \"x\"\n[profile.release]\nopt-level = 2\n[lints]\nx = 1\n";
        let text = package_of(ours, theirs).unwrap();
        assert!(text.ends_with("[profile.release]\nopt-level = 2\n"), "{text}");
        assert!(text.contains("\ncriterion = \"1\"\n") && !text.contains("lto"), "{text}");
        assert!(package_of("", theirs).unwrap_err().to_string().contains("`edition = `"));
    }
}
