//! The tests that need a KVM: their names, and their places.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cargo;
use crate::exec::{self, Context, Error, Result};

/// One test function.
#[derive(Debug, Clone)]
pub struct KvmTest {
    /// The file in tests/, without its extension.
    pub file: String,
    pub binary: PathBuf,
    pub name: String,
}

impl KvmTest {
    /// Does its guest run Linux?
    pub fn boots_linux(&self) -> bool {
        self.file.starts_with("linux_")
    }

    /// Does it build programs and run them?
    pub fn compiles(&self) -> bool {
        self.file.starts_with("kvm_") && ["_ffi", "_go"].iter().any(|end| self.file.ends_with(end))
    }

    /// Does it compare with a Firecracker that the user names?
    pub fn wants_original(&self) -> bool {
        self.file == "kvm_original"
    }
}

impl fmt::Display for KvmTest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}::{}", self.file, self.name)
    }
}

/// The folders of the packages that have such tests.
const FOLDERS: [&str; 3] = ["", "firecracker", "platform"];

/// Builds the test programs, and asks each for its tests: those whose name contains `filter`. A file that has none of them is not built.
/// Unless it is `long` or there is a filter, those that wait for `--long` are left out and counted.
pub fn matching(filter: Option<&str>, long: bool) -> Result<(Vec<KvmTest>, usize)> {
    let (mut files, mut waiting) = (Vec::new(), Vec::new());
    for dir in FOLDERS.map(|folder| cargo::workspace().join(folder).join("tests")) {
        let here = files_in(&dir)?.into_iter().filter(|file| filter.is_none_or(|filter| may_match(filter, file, &dir)));
        for file in here {
            waiting
                .extend(waiting_for_long(&std::fs::read_to_string(dir.join(format!("{file}.rs"))).unwrap_or_default()));
            files.push(file);
        }
    }
    let mut tests = if files.is_empty() { Vec::new() } else { in_files(&files)? };
    tests.retain(|test| filter.is_none_or(|filter| test.to_string().contains(filter)));
    let waits = |test: &mut KvmTest| !long && filter.is_none() && waiting.contains(&test.name);
    let left_out = tests.extract_if(.., waits).count();
    Ok((tests, left_out))
}

/// The tests that are left to `--long`, as the reason for which each is ignored says.
fn waiting_for_long(source: &str) -> Vec<String> {
    let mut lines = source.lines();
    let mut names = Vec::new();
    while lines.any(|line| line.starts_with("#[ignore") && line.contains("--long")) {
        let function = lines.find_map(|line| line.strip_prefix("fn "));
        names.extend(function.and_then(|line| line.split('(').next()).map(String::from));
    }
    names
}

/// The files with such tests, without their extension.
fn files_in(dir: &Path) -> Result<Vec<String>> {
    let entries = std::fs::read_dir(dir).context(dir.display())?;
    let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let is_kvm = |name: &String| name.starts_with("kvm_") || name.starts_with("linux_");
    let mut files: Vec<String> =
        names.filter_map(|name| name.strip_suffix(".rs").map(String::from)).filter(is_kvm).collect();
    files.sort();
    if files.is_empty() {
        let dir = dir.display();
        return Err(Error::new(format!("{dir} has neither kvm_*.rs nor linux_*.rs, so no KVM test was run")));
    }
    Ok(files)
}

/// Whether a test of the file may have a name that contains `filter`: the file's, perhaps that of a module, and the function's, with `::` between.
fn may_match(filter: &str, file: &str, dir: &Path) -> bool {
    let read = |name: &str| std::fs::read_to_string(dir.join(name)).unwrap_or_default();
    let source = read(&format!("{file}.rs"));
    let modules = source.lines().filter_map(|line| line.trim().strip_prefix("#[path = \"")?.strip_suffix("\"]"));
    let sources: Vec<String> = std::iter::once(source.clone()).chain(modules.map(read)).collect();
    let says = |word: &str| sources.iter().any(|source| source.contains(word));
    let (first, last) = (filter.split("::").next().unwrap_or(filter), filter.rsplit("::").next().unwrap_or(filter));
    let may_begin = !filter.contains("::") || file.ends_with(first) || says(&format!("mod {first}"));
    may_begin && (file.contains(last) || says(last))
}

fn in_files(files: &[String]) -> Result<Vec<KvmTest>> {
    // Release: emulation is slow enough.
    let mut args = vec!["test", "--release", "--no-run", "--workspace"];
    args.extend(files.iter().flat_map(|file| ["--test", file]));
    let mut tests = Vec::new();
    for program in cargo::build(&args)?.into_iter().filter(|program| program.kind == "test") {
        let listing =
            exec::capture_text(Command::new(&program.path).args(["--list", "--ignored", "--format", "terse"]))?;
        let names = listing.lines().filter_map(|line| line.strip_suffix(": test"));
        tests.extend(names.map(|name| KvmTest {
            file: program.name.clone(),
            binary: program.path.clone(),
            name: name.into(),
        }));
    }
    Ok(tests)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_waits_for_long_if_its_reason_says_so() {
        let source = "#[test]\n#[ignore = \"needs a KVM: cargo xtask test --long\"]\nfn much() {\n}\n#[test]\n\
            #[ignore = \"needs a KVM: cargo xtask test\"]\nfn little() {}\n#[ignore = \"as much: --long\"]\n#[allow(dead_code)]\nfn more() {}\n";
        assert_eq!(waiting_for_long(source), ["much", "more"]);
    }

    #[test]
    fn a_file_is_built_if_a_test_of_it_may_have_such_a_name() {
        let folder = crate::scratch::Scratch::new(&std::env::temp_dir(), "listing").unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write("linux_net.rs", "#[test]\nfn frames_pass() {}\n");
        write("kvm_net.rs", "#[path = \"more.rs\"]\nmod card;\n#[test]\nfn rings() {}\n");
        write("more.rs", "#[test]\nfn chains_end() {}\n");
        let matching = |filter: &str| {
            let files = files_in(folder.path()).unwrap();
            files.into_iter().filter(|file| may_match(filter, file, folder.path())).collect::<Vec<_>>().join(" ")
        };
        for (filter, files) in [
            ("linux_net", "linux_net"),
            ("net", "kvm_net linux_net"),
            ("frames", "linux_net"),
            ("chains_end", "kvm_net"),
            ("kvm_net::card::chains", "kvm_net"),
            ("card::chains", "kvm_net"),
            ("net::rings", "kvm_net"),
            ("linux_net::", "linux_net"),
            ("linux_net::rings", ""),
            ("nothing", ""),
        ] {
            assert_eq!(matching(filter), files, "{filter}");
        }
    }
}
