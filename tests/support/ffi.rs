//! The library as C programs find it: installed by cargo-c into a prefix of its own.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;
use vmcell::testing::TinyGuest;

pub fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Where the library is installed: `VMCELL_PREFIX`, which `cargo xtask test` sets, or made here.
pub struct Prefix(PathBuf);

impl Prefix {
    pub fn new() -> Self {
        Self(std::env::var_os("VMCELL_PREFIX").map_or_else(install, PathBuf::from))
    }

    pub fn path(&self, inside: &str) -> PathBuf {
        self.0.join(inside)
    }

    /// A program that finds the library, at build time and at run time.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env("PKG_CONFIG_PATH", self.path("lib/pkgconfig")).env("LD_LIBRARY_PATH", self.path("lib"));
        command
    }

    /// What pkg-config says.
    pub fn pkg_config(&self, arguments: &[&str]) -> Vec<String> {
        let mut command = self.command("pkg-config");
        run(command.args(arguments).arg("vmcell")).split_whitespace().map(str::to_owned).collect()
    }
}

fn install() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("ffi");
    fs::create_dir_all(&folder).expect("the folder is made");
    let (prefix, target) = (folder.join("prefix"), folder.join("target"));
    // Tests may be processes of their own, and only one installs at a time.
    let mut cargo = Command::new("flock");
    cargo.arg(folder.join("lock")).args(["cargo-cinstall", "cinstall", "--release", "--locked", "--libdir"]);
    cargo.arg(prefix.join("lib")).arg("--prefix").arg(&prefix).arg("--target-dir").arg(&target);
    run(cargo.current_dir(repository("")));
    prefix
}

/// Runs a program to its end and gives its standard output; panics with everything it said when it fails.
pub fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?} does not start: {e}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{text}\n{errors}", output.status);
    text
}

/// The go command in the package's folder: it downloads nothing.
pub fn go(prefix: &Prefix, arguments: &[&str]) -> Command {
    let mut go = prefix.command("go");
    go.args(arguments).current_dir(repository("examples/go"));
    // Go's cache does not notice another library or header, but does notice other flags.
    let mut installed = DefaultHasher::new();
    for file in ["include/vmcell.h", "lib/libvmcell.so"] {
        (prefix.path(file), fs::read(prefix.path(file)).unwrap()).hash(&mut installed);
    }
    go.env("CGO_CFLAGS", format!("-O2 -g -DVMCELL_BUILD={:#x}", installed.finish()));
    go.env("CGO_ENABLED", "1").env("GOPROXY", "off").env("GOTOOLCHAIN", "local").env("GOFLAGS", "-mod=mod");
    go
}

/// Leaks of every kind are errors, but for what is still reachable at the end.
const VALGRIND: [&str; 6] = [
    "-q",
    "--fair-sched=yes",
    "--leak-check=full",
    "--show-leak-kinds=definite,indirect,possible",
    "--errors-for-leak-kinds=definite,indirect,possible",
    "--error-exitcode=9",
];

/// What stands in front of a program that valgrind is to watch.
pub fn valgrind() -> Vec<String> {
    let suppressions = format!("--suppressions={}", repository("tests/ffi/valgrind.supp").display());
    ["valgrind", &suppressions].into_iter().chain(VALGRIND).map(str::to_owned).collect()
}

/// A folder with a guest of each kind, under the names that the programs in C and Go know.
pub fn guests() -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    // Jumps to where neither memory nor a device is, and that cannot be served.
    let failing = TinyGuest::new([0xb8, 0x00, 0x00, 0x00, 0xd8, 0xff, 0xe0]); // mov eax, 0xd8000000; jmp rax
    let guests = [
        ("spin", TinyGuest::spin()),
        ("power_off", TinyGuest::power_off()),
        ("hello", TinyGuest::print("hello")),
        ("flood", TinyGuest::flood(b'x')),
        ("echo", TinyGuest::echo()),
        ("acpi_reset", TinyGuest::acpi_reset()),
        ("keyboard_reset", TinyGuest::keyboard_reset()),
        ("panic", TinyGuest::panic(1)),
        ("triple_fault", TinyGuest::triple_fault()),
        ("failing", failing),
        ("break_queues", super::break_queues()),
    ];
    for (name, guest) in guests {
        guest.write_to(folder.path().join(name)).expect("a guest's image is written");
    }
    folder
}
