//! A monitor as the nested host runs it: its program, the libraries and files that it needs, and its command line there.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::contender::{Contender, Machine};
use crate::exec::{self, Context, Error, Result};
use crate::nested::image::{Item, MOUNT};

/// The command, and the files on the nested host's disk; an error says why there is none. The guest is `vmlinux` with `init.img`.
pub fn command(number: usize, contender: &Contender, cmdline: &str, scratch: &Path) -> (Result<String>, Vec<Item>) {
    match try_command(number, contender, cmdline, scratch) {
        Ok((command, items)) => (Ok(command), items),
        Err(error) => (Err(error), Vec::new()),
    }
}

fn try_command(number: usize, contender: &Contender, cmdline: &str, scratch: &Path) -> Result<(String, Vec<Item>)> {
    let home = scratch.join(format!("home{number}"));
    std::fs::create_dir_all(&home).context(home.display())?;
    let (guest, initrd) = (format!("{MOUNT}/vmlinux"), format!("{MOUNT}/init.img"));
    let machine = Machine {
        guest: Path::new(&guest),
        initrd: Some(Path::new(&initrd)),
        cmdline: cmdline.into(),
        disk: None,
        tap: None,
        huge_pages: true,
        scratch: &home,
    };
    let command = contender.command(&machine)?.ok_or_else(|| Error::new("there is no floor"))?;
    let mut files = Files { folder: number.to_string(), items: Vec::new() };
    let mut words = files.program(&find(command.get_program().as_ref())?)?;
    for entry in std::fs::read_dir(&home).context(home.display())?.flatten() {
        files.add(&format!("home/{}", entry.file_name().to_string_lossy()), entry.path());
    }
    let (here, there) = (home.to_string_lossy().into_owned(), files.place("home"));
    words.extend(command.get_args().map(|word| word.to_string_lossy().replace(&here, &there)));
    for path in contender.firmware() {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        files.add(&format!("firmware/{name}"), path.canonicalize().context(path.display())?);
    }
    if !contender.firmware().is_empty() {
        words.extend(["-L".into(), files.place("firmware")]);
    }
    let words: Vec<String> = words.iter().map(|word| exec::quote(word)).collect();
    Ok((words.join(" "), files.items))
}

/// Files of one contender, in a folder of its own.
struct Files {
    folder: String,
    items: Vec<Item>,
}

impl Files {
    fn add(&mut self, name: &str, from: PathBuf) {
        self.items.push(Item { name: format!("{}/{name}", self.folder), from });
    }

    fn place(&self, name: &str) -> String {
        format!("{MOUNT}/{}/{name}", self.folder)
    }

    /// Adds the program with its libraries; returns the words that start it.
    fn program(&mut self, program: &Path) -> Result<Vec<String>> {
        self.add("program", program.into());
        let told = exec::capture_text(Command::new("ldd").arg(program)).unwrap_or_default();
        let mut loader = None;
        for path in libraries(&told) {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name.starts_with("ld-") {
                loader = Some(self.place(&format!("libraries/{name}")));
            }
            self.add(&format!("libraries/{name}"), path.canonicalize().context(path.display())?);
        }
        let program = self.place("program");
        Ok(match loader {
            // With this host's own loader and libraries: the nested host's may be of another release.
            Some(loader) => vec![loader, "--library-path".into(), self.place("libraries"), program],
            None => vec![program],
        })
    }
}

/// The paths in what `ldd` says: `libc.so.6 => /lib/libc.so.6 (0x..)`, and the loader as `/lib64/ld-linux.so (0x..)`.
fn libraries(told: &str) -> Vec<PathBuf> {
    let path = |line: &str| line.split_whitespace().find(|word| word.starts_with('/')).map(PathBuf::from);
    told.lines().filter_map(path).collect()
}

/// A program by its path, or by its name on PATH.
fn find(program: &Path) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = || std::env::split_paths(&path).map(|dir| dir.join(program)).find(|path| path.is_file());
    let found = if program.components().count() > 1 { Some(program.into()) } else { on_path() };
    let found = found.ok_or_else(|| Error::new(format!("there is no {}", program.display())))?;
    found.canonicalize().context(found.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_and_the_loader_are_found_in_what_ldd_says() {
        let told =
            "\tlinux-vdso.so.1 (0x7f)\n\tlibc.so.6 => /lib/x/libc.so.6 (0x7f)\n\t/lib64/ld-linux-x86-64.so.2 (0x7f)\n";
        assert_eq!(libraries(told), [Path::new("/lib/x/libc.so.6"), Path::new("/lib64/ld-linux-x86-64.so.2")]);
        assert!(libraries("\tnot a dynamic executable\n").is_empty());
    }
}
