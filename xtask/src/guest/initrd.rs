//! The initrd: busybox, the modules that were asked for, and `init.sh`. It is not compressed: it is small, and if
//! instructions are emulated, unpacking costs more than reading. A test appends an archive of its own with a `/test.sh`
//! in it.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::cpio::Archive;
use super::kernel::Kernel;
use super::modules;
use crate::cache::{self, Cache};
use crate::exec::{self, Context, Result};

const INIT: &str = include_str!("init.sh");
const SHELL: &str = include_str!("shell.sh");
const BUSYBOX: &str = "/bin/busybox";

/// An initrd for `kernel` that loads `wanted` and their dependencies.
pub fn prepare(cache: &Cache, kernel: &Kernel, wanted: &[&str]) -> Result<PathBuf> {
    let busybox = std::fs::read(BUSYBOX).context(BUSYBOX)?;
    let recipe = format!("initrd 1 {} {wanted:?} {:x} {INIT} {SHELL}", kernel.key(), cache::hash(&busybox));
    let entry = cache.entry("initrd", &recipe, |dir| build(dir, kernel, wanted, &busybox))?;
    Ok(entry.join("initrd.img"))
}

fn build(dir: &Path, kernel: &Kernel, wanted: &[&str], busybox: &[u8]) -> Result<()> {
    eprintln!("xtask: making an initrd with {}", wanted.join(", "));
    let mut archive = Archive::default();
    for dir in ["bin", "dev", "modules", "newroot", "proc", "sys", "tmp"] {
        archive.dir(dir);
    }
    // The kernel opens it for init before anything is mounted.
    archive.char_device("dev/console", 5, 1);
    archive.file("init", true, INIT.as_bytes());
    archive.file("shell.sh", true, SHELL.as_bytes());
    archive.file("bin/busybox", true, busybox);
    let applets = exec::capture_text(Command::new(BUSYBOX).arg("--list"))?;
    for applet in applets.lines().filter(|applet| *applet != "busybox") {
        archive.symlink(&format!("bin/{applet}"), "busybox");
    }
    for (number, file) in kernel.modules()?.resolve(wanted)?.iter().enumerate() {
        let name = modules::name_of(&file.to_string_lossy());
        archive.file(&format!("modules/{number:02}-{name}.ko"), false, &modules::load(file)?);
    }
    std::fs::write(dir.join("initrd.img"), archive.finish()).context("initrd.img")
}
