//! The library as C programs get it: installed by cargo-c, with the programs in C and in Go built from it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::listing::KvmTest;
use crate::exec::{self, Context, Result};
use crate::tools::CARGO_C;
use crate::{cache, cargo};

/// The files that the tests of the C interface use. Programs are linked against `libvmcell.a`, so they run where
/// nothing is installed.
pub struct CFace {
    /// The prefix with header, libraries and pkg-config file.
    pub prefix: PathBuf,
    c_launcher: PathBuf,
    go_launcher: PathBuf,
    c_encrypted_disk: PathBuf,
}

impl CFace {
    /// The programs: the variable that names each to the tests, its name where it runs elsewhere, and its path.
    pub fn programs(&self) -> [(&'static str, &'static str, &PathBuf); 3] {
        [
            ("VMCELL_C_LAUNCH", "launch-c", &self.c_launcher),
            ("VMCELL_GO_LAUNCH", "launch-go", &self.go_launcher),
            ("VMCELL_C_ENCRYPTED_DISK", "encrypted-disk-c", &self.c_encrypted_disk),
        ]
    }
}

/// Does the test use these files?
pub fn wanted_by(test: &KvmTest) -> bool {
    test.file.ends_with("_ffi")
}

impl CFace {
    /// Makes them; `None` if cargo-c is missing and may not be installed unasked.
    pub fn build() -> Result<Option<Self>> {
        let Some(cinstall) = CARGO_C.find_or_install()? else { return Ok(None) };
        let folder = cargo::target_dir().join("xtask/capi");
        let (shared, fixed) = (folder.join("prefix"), folder.join("static"));
        println!("C interface: cargo cinstall, and the programs in C and in Go");
        install(&cinstall, &shared, &folder.join("target"))?;
        leave_static_library(&shared, &fixed)?;
        let (c_launcher, go_launcher) = (folder.join("launch"), folder.join("launch-go"));
        let mut make = with_library(Command::new("make"), &fixed);
        make.args(["--silent", "--always-make", "STATIC=1"]).arg(format!("OUT={}", folder.display()));
        exec::capture(make.arg("-C").arg(cargo::workspace().join("examples/c")))?;
        exec::capture(go_build(&fixed)?.arg(&go_launcher).arg("./cmd/launch"))?;
        let c_encrypted_disk = folder.join("encrypted_disk");
        Ok(Some(Self { prefix: shared, c_launcher, go_launcher, c_encrypted_disk }))
    }
}

fn install(cinstall: &Path, prefix: &Path, target: &Path) -> Result<()> {
    let mut command = Command::new(cinstall);
    command.current_dir(cargo::workspace()).args(["cinstall", "--release", "--locked", "--target-dir"]);
    command.arg(target).arg("--prefix").arg(prefix).arg("--libdir").arg(prefix.join("lib"));
    exec::capture(&mut command).map(drop)
}

/// A prefix without the shared library, so that no linker can prefer it.
fn leave_static_library(from: &Path, to: &Path) -> Result<()> {
    for file in ["include/vmcell.h", "lib/libvmcell.a", "lib/pkgconfig/vmcell.pc"] {
        let (from, to) = (from.join(file), to.join(file));
        fs::create_dir_all(to.parent().unwrap_or(&to)).context(to.display())?;
        fs::copy(&from, &to).context(from.display())?;
    }
    let pc = to.join("lib/pkgconfig/vmcell.pc");
    let text = fs::read_to_string(&pc).context(pc.display())?;
    // The static library's own dependencies are always needed now.
    let lines = text.lines().map(|line| match line.split_once('=') {
        Some(("prefix", _)) => format!("prefix={}\n", to.display()),
        _ => line.replace("-lvmcell", "-lvmcell -lgcc_s -lm -lc") + "\n",
    });
    fs::write(&pc, lines.collect::<String>()).context(pc.display())
}

fn with_library(mut command: Command, prefix: &Path) -> Command {
    command.env("PKG_CONFIG_PATH", prefix.join("lib/pkgconfig"));
    command
}

/// A command that lacks only the file to write to. It downloads nothing.
fn go_build(prefix: &Path) -> Result<Command> {
    let library = prefix.join("lib/libvmcell.a");
    let library = cache::hash(&fs::read(&library).context(library.display())?);
    let mut go = with_library(Command::new("go"), prefix);
    go.current_dir(cargo::workspace().join("examples/go"));
    // Go's cache does not notice another library or header, but does notice other flags.
    go.env("CGO_CFLAGS", format!("-O2 -g -DVMCELL_STATIC_BUILD={library:#x}"));
    go.env("CGO_ENABLED", "1").env("GOPROXY", "off").env("GOTOOLCHAIN", "local").args(["build", "-o"]);
    Ok(go)
}
