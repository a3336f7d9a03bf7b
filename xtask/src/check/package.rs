//! The crate as its users get it: what `cargo package` makes, unpacked, tested, and linked twice into one program.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cargo::{self, cargo};
use crate::exec::{self, Context, Error, Result};
use crate::scratch::Scratch;

/// Packs and unpacks the crate, and tries what came out.
pub fn check() -> Result<()> {
    // Not inside the workspace, which it would be taken for a part of.
    let scratch = Scratch::new(&std::env::temp_dir(), "vmcell-package")?;
    let package = unpack(scratch.path())?;
    check_links(&package)?;
    exec::run(packaged(&package).args([
        "test",
        "--quiet",
        "--features",
        "log,metadata,network,save,secret,serde,test-util,volume,wireguard",
        "--lib",
        "--examples",
    ]))?;
    link_two_versions(scratch.path(), &package)
}

/// Makes the package, and gives the folder that it was unpacked into.
fn unpack(folder: &Path) -> Result<PathBuf> {
    let target = folder.join("made");
    // What is not committed belongs to it too: the command tests the tree as it is.
    let package =
        ["package", "--package", "vmcell", "--locked", "--allow-dirty", "--no-verify", "--offline", "--quiet"];
    exec::run(cargo().args(package).arg("--target-dir").arg(&target))?;
    let made = files(&target.join("package"))?;
    let archive = made.iter().find(|path| path.extension().is_some_and(|extension| extension == "crate"));
    let archive = archive.ok_or_else(|| Error::new("cargo package made no .crate file"))?;
    // With the time of now: the archive's files are all of one time, by which cargo would take what it built before for theirs.
    exec::run(Command::new("tar").arg("-xmzf").arg(archive).arg("-C").arg(folder))?;
    archive.file_stem().map(|name| folder.join(name)).ok_or_else(|| Error::new("the .crate file has no name"))
}

/// Cargo, in the package. What it builds is kept, so that what the package depends on is not built twice.
fn packaged(package: &Path) -> Command {
    let mut command = cargo();
    command.current_dir(package).env("CARGO_TARGET_DIR", cargo::target_dir());
    command
}

/// Each relative link of the package's documents leads to something in the package.
fn check_links(package: &Path) -> Result<()> {
    let documents = [files(package)?, files(&package.join("docs"))?].concat();
    let mut broken = Vec::new();
    for document in documents.iter().filter(|path| path.extension().is_some_and(|extension| extension == "md")) {
        let text = std::fs::read_to_string(document).context(document.display())?;
        let folder = document.parent().unwrap_or(package);
        let missing = links(&text).filter(|link| !folder.join(link).exists());
        broken.extend(missing.map(|link| format!("{}: {link}", document.display())));
    }
    if broken.is_empty() {
        return Ok(());
    }
    Err(Error::new(format!("links that lead to nothing in the package: {}", broken.join(", "))))
}

/// The paths that a Markdown text links to, without the place inside.
fn links(text: &str) -> impl Iterator<Item = &str> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target);
    targets.filter(|target| !target.contains("://") && !target.starts_with('#')).map(without_place)
}

fn without_place(link: &str) -> &str {
    link.split_once('#').map_or(link, |(path, _)| path)
}

/// One program may depend on two versions of the crate, by way of others: no name may be defined by both.
fn link_two_versions(folder: &Path, package: &Path) -> Result<()> {
    // The package becomes version 90.1.0, say: Cargo tells two packages apart by name and version.
    let manifest = package.join("Cargo.toml");
    let text = std::fs::read_to_string(&manifest).context(manifest.display())?;
    std::fs::write(&manifest, text.replacen("\nversion = \"", "\nversion = \"9", 1)).context(manifest.display())?;
    let program = folder.join("two-versions");
    let manifest = format!(
        "[package]\nname = \"two-versions\"\nversion = \"0.0.0\"\nedition = \"2024\"\n[dependencies]\n\
         one = {{ package = \"vmcell\", path = {package:?} }}\nother = {{ package = \"vmcell\", path = {:?} }}\n",
        cargo::workspace()
    );
    let main = "fn main() {\n    drop((one::Vm::builder(), other::Vm::builder()));\n}\n";
    std::fs::create_dir_all(program.join("src")).context(program.display())?;
    std::fs::write(program.join("Cargo.toml"), manifest).context("Cargo.toml")?;
    std::fs::copy(cargo::workspace().join("Cargo.lock"), program.join("Cargo.lock")).context("Cargo.lock")?;
    std::fs::write(program.join("src/main.rs"), main).context("main.rs")?;
    exec::run(packaged(&program).args(["run", "--quiet"]))
}

fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).context(folder.display())?;
    Ok(entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_relative_links_are_looked_at_and_without_the_place_in_them() {
        let text = "[a](docs/a.md#part), [b](https://example.com/x) and ![c](figures/c.svg), [d](#below)";
        assert_eq!(links(text).collect::<Vec<_>>(), ["docs/a.md", "figures/c.svg"]);
    }
}
