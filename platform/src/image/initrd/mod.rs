//! What a guest starts from: `cell-init`, the modules that the kernel needs for a root file system and the host, and the programs that make
//! file systems on new volumes, each with its libraries.

mod cpio;
mod elf;
mod modules;

use std::fs;
use std::path::{Path, PathBuf};

use crate::fault::{Context, Fault, Result};
use cpio::Archive;

/// The programs of e2fsprogs that volumes are made and grown with, and where distributions have them.
const TOOLS: [&str; 2] = ["mke2fs", "resize2fs"];
const TOOL_FOLDERS: [&str; 4] = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"];
/// Tells mke2fs what an ext4 file system is.
const TOOL_SETTINGS: &str = "/etc/mke2fs.conf";

/// Makes an initrd in the file `into` with the program `init`, for `kernel`, a bzImage or ELF file. `modules` is the folder of the kernel's
/// modules (`/lib/modules/VERSION`); without it, the folder is looked for by the kernel's version.
///
/// If this host has no e2fsprogs, guests from this initrd cannot make file systems on new volumes, and say so.
///
/// # Errors
/// If the kernel is not a file; if the init is no program of this machine or lacks a library; if there are no modules, or not all that a guest needs; if the file cannot
/// be written.
pub fn initrd(init: &Path, kernel: &Path, modules: Option<&Path>, into: &Path) -> Result<()> {
    // A pipe would never end, nor would a device.
    if !fs::metadata(kernel).context(kernel.display())?.is_file() {
        return Err(Fault::new(format!("the kernel {} is not a file", kernel.display())));
    }
    let mut archive = Archive::default();
    for folder in ["dev", "image", "modules", "proc", "root", "run", "sbin", "sys", "tmp"] {
        archive.folder(folder);
    }
    // The kernel opens it for the first program, before anything is mounted.
    archive.character_device("dev/console", (5, 1));
    let mut libraries = elf::libraries(init)?;
    let program =
        |path: &Path| -> Result<Vec<u8>> { Ok(elf::without_symbols(fs::read(path).context(path.display())?)) };
    archive.file("init", 0o755, &program(init)?);
    for tool in TOOLS {
        let places = TOOL_FOLDERS.iter().map(|folder| Path::new(folder).join(tool));
        if let Some(path) = places.into_iter().find(|path| path.is_file()) {
            libraries.append(&mut elf::libraries(&path)?);
            archive.file(&format!("sbin/{tool}"), 0o755, &program(&path)?);
        }
    }
    if let Ok(settings) = fs::read(TOOL_SETTINGS) {
        archive.file("etc/mke2fs.conf", 0o644, &settings);
    }
    for (path, bytes) in libraries {
        archive.file(path.to_string_lossy().trim_start_matches('/'), 0o755, &elf::without_symbols(bytes));
    }
    let modules = modules::modules(&modules::folder(kernel, modules)?)?;
    // Their names sort as they are inserted.
    for (number, (name, bytes)) in modules.iter().enumerate() {
        archive.file(&format!("modules/{number:03}-{name}.ko"), 0o644, bytes);
    }
    let partial = PathBuf::from(format!("{}.partial", into.display()));
    fs::write(&partial, archive.finish()).context(partial.display())?;
    fs::rename(&partial, into).context(into.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_that_is_not_a_file_is_refused_before_it_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        for kernel in [pipe.as_path(), Path::new("/dev/zero"), folder.path()] {
            let why = initrd(Path::new("/bin/sh"), kernel, None, &folder.path().join("initrd")).unwrap_err();
            assert_eq!(why.message, format!("the kernel {} is not a file", kernel.display()));
        }
    }
}
