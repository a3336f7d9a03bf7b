//! The initrd: busybox, the modules that were asked for, and `init.sh`, which loads those in `/modules` and leaves those in
//! `/spare` to tests. It is not compressed: it is small, and if
//! instructions are emulated, unpacking costs more than reading. A test appends an archive of its own with a `/test.sh`
//! in it.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::cpio::Archive;
use super::kernel::Kernel;
use super::modules::{self, Modules};
use crate::cache::{self, Cache};
use crate::exec::{self, Context, Result};

const INIT: &str = include_str!("init.sh");
const SHELL: &str = include_str!("shell.sh");
const NAME: &str = "initrd.img";
const BUSYBOX: &str = "/bin/busybox";

/// Names of modules, without their dependencies.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Loaded by `init.sh`.
    pub load: &'a [&'a str],
    /// There for a test to load.
    pub spare: &'a [&'a str],
}

/// An initrd for `kernel` with modules and their dependencies.
pub fn prepare(cache: &Cache, kernel: &Kernel, wanted: Wanted<'_>) -> Result<PathBuf> {
    let busybox = std::fs::read(BUSYBOX).context(BUSYBOX)?;
    let recipe = format!("initrd 1 {} {wanted:?} {:x} {INIT} {SHELL}", kernel.key(), cache::hash(&busybox));
    let entry = cache.entry("initrd", &recipe, |dir| {
        eprintln!("xtask: making an initrd with {}", wanted.load.join(", "));
        build(dir, Some((&kernel.modules()?, wanted)), &busybox).map(drop)
    })?;
    Ok(entry.join(NAME))
}

/// An initrd in `dir` for a kernel that isn't in the cache, with those of its modules that it has.
pub fn make(dir: &Path, modules: Option<(&Modules, Wanted<'_>)>) -> Result<PathBuf> {
    build(dir, modules, &std::fs::read(BUSYBOX).context(BUSYBOX)?)
}

fn build(dir: &Path, modules: Option<(&Modules, Wanted<'_>)>, busybox: &[u8]) -> Result<PathBuf> {
    let mut archive = Archive::default();
    for dir in ["bin", "dev", "modules", "newroot", "proc", "spare", "sys", "tmp"] {
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
    if let Some((modules, wanted)) = modules {
        add_modules(&mut archive, "modules", &modules.resolve(wanted.load)?)?;
        add_modules(&mut archive, "spare", &modules.resolve(wanted.spare)?)?;
    }
    let initrd = dir.join(NAME);
    std::fs::write(&initrd, archive.finish()).context(NAME)?;
    Ok(initrd)
}

/// Their names sort as they must be loaded.
fn add_modules(archive: &mut Archive, dir: &str, files: &[PathBuf]) -> Result<()> {
    for (number, file) in files.iter().enumerate() {
        let name = modules::name_of(&file.to_string_lossy());
        archive.file(&format!("{dir}/{number:02}-{name}.ko"), false, &modules::load(file)?);
    }
    Ok(())
}
