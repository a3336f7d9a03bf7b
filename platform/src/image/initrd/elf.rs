//! Which loader and which libraries a program needs, by its ELF headers: 64-bit, little-endian.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::fault::{Context, Fault, Result};

/// Where the loader looks for libraries without a cache.
const FOLDERS: [&str; 6] =
    ["/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib64", "/usr/lib64", "/lib", "/usr/lib"];
/// The most libraries of a program.
const MOST: usize = 64;
const LOAD: u32 = 1;
const DYNAMIC: u32 = 2;
const INTERPRETER: u32 = 3;
const NEEDED: u64 = 1;
const STRINGS: u64 = 5;
/// Where the file header says where sections are, how many, and which has their names; and how long that is.
const SECTIONS: [(usize, usize); 3] = [(0x28, 8), (0x3c, 2), (0x3e, 2)];

/// What a file needs.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// The loader; none for a static program.
    pub interpreter: Option<String>,
    /// Names of libraries.
    pub libraries: Vec<String>,
}

/// Reads the headers; none if this is no ELF file of this machine.
pub fn needs(bytes: &[u8]) -> Option<Needs> {
    let headers = headers(bytes)?;
    let mut needs = Needs::default();
    if let Some(interpreter) = headers.iter().find(|header| header.kind == INTERPRETER) {
        needs.interpreter = Some(text(bytes, interpreter.offset)?);
    }
    let Some(dynamic) = headers.iter().find(|header| header.kind == DYNAMIC) else { return Some(needs) };
    let entry = |index: u64| {
        let at = dynamic.offset.checked_add(index.checked_mul(16)?)?;
        Some((number(bytes, at, 8)?, number(bytes, at.checked_add(8)?, 8)?))
    };
    let entries: Vec<(u64, u64)> = (0..dynamic.size / 16).map_while(entry).take_while(|(tag, _)| *tag != 0).collect();
    let Some((_, strings)) = entries.iter().find(|(tag, _)| *tag == STRINGS) else { return Some(needs) };
    // An address in memory, which a loaded part of the file has.
    let strings = headers.iter().filter(|header| header.kind == LOAD).find_map(|header| {
        let within = strings.checked_sub(header.address).filter(|within| *within < header.size)?;
        header.offset.checked_add(within)
    })?;
    let names = entries.iter().filter(|(tag, _)| *tag == NEEDED);
    needs.libraries = names.map(|(_, name)| text(bytes, strings.checked_add(*name)?)).collect::<Option<_>>()?;
    Some(needs)
}

/// The file without what is for linkers and debuggers alone, which may be most of it: what lies behind all that is loaded, and the list of
/// sections. A file that is no program stays as it is.
pub fn without_symbols(mut bytes: Vec<u8>) -> Vec<u8> {
    let ends = headers(&bytes).unwrap_or_default().into_iter().map(|header| header.offset.checked_add(header.size));
    let Some(Some(end)) = ends.max() else { return bytes };
    bytes.truncate(usize::try_from(end).unwrap_or(usize::MAX));
    for (at, len) in SECTIONS {
        if let Some(field) = bytes.get_mut(at..).and_then(|rest| rest.get_mut(..len)) {
            field.fill(0);
        }
    }
    bytes
}

fn headers(bytes: &[u8]) -> Option<Vec<Header>> {
    bytes.strip_prefix(b"\x7fELF\x02\x01")?;
    let at = number(bytes, 0x20, 8)?;
    let (size, count) = (number(bytes, 0x36, 2)?, number(bytes, 0x38, 2)?);
    (0..count).map(|index| header(bytes, at.checked_add(index.checked_mul(size)?)?)).collect()
}

/// A part of the file.
struct Header {
    kind: u32,
    offset: u64,
    address: u64,
    size: u64,
}

fn header(bytes: &[u8], at: u64) -> Option<Header> {
    let field = |offset: u64, len| number(bytes, at.checked_add(offset)?, len);
    Some(Header {
        kind: u32::try_from(field(0, 4)?).ok()?,
        offset: field(8, 8)?,
        address: field(16, 8)?,
        size: field(32, 8)?,
    })
}

fn number(bytes: &[u8], at: u64, len: usize) -> Option<u64> {
    let at = usize::try_from(at).ok()?;
    let field = bytes.get(at..at.checked_add(len)?)?;
    Some(field.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
}

fn text(bytes: &[u8], at: u64) -> Option<String> {
    let rest = bytes.get(usize::try_from(at).ok()?..)?;
    let end = rest.iter().take(4096).position(|byte| *byte == 0)?;
    String::from_utf8(rest.get(..end)?.to_vec()).ok()
}

/// A program with its loader and all its libraries, by the paths that they have on this host. The program itself is not among them.
///
/// # Errors
/// If the program is of another machine, or a library is not there.
pub fn libraries(program: &Path) -> Result<BTreeMap<PathBuf, Vec<u8>>> {
    let bytes = fs::read(program).context(program.display())?;
    let first =
        needs(&bytes).ok_or_else(|| Fault::new(format!("{}: no program of this machine", program.display())))?;
    let mut found = BTreeMap::new();
    let mut todo = first.libraries;
    if let Some(interpreter) = first.interpreter {
        let bytes = fs::read(&interpreter).context(&interpreter)?;
        found.insert(PathBuf::from(interpreter), bytes);
    }
    while let Some(name) = todo.pop() {
        if found.keys().any(|path| path.file_name().is_some_and(|known| known == name.as_str())) {
            continue;
        }
        let places = FOLDERS.iter().map(|folder| Path::new(folder).join(&name));
        let path = places.into_iter().find(|path| path.is_file());
        let path = path.ok_or_else(|| {
            Fault::new(format!("{} needs {name}, which is not in {}", program.display(), FOLDERS.join(", ")))
        })?;
        let bytes = fs::read(&path).context(path.display())?;
        todo.extend(needs(&bytes).unwrap_or_default().libraries);
        found.insert(path, bytes);
        if found.len() > MOST {
            return Err(Fault::new(format!("{} needs more than {MOST} libraries", program.display())));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_program_needs_its_loader_and_the_c_library() {
        let program = std::env::current_exe().unwrap();
        let found = libraries(&program).unwrap();
        let names: Vec<&str> = found.keys().filter_map(|path| path.file_name()?.to_str()).collect();
        assert!(names.contains(&"libc.so.6") && names.iter().any(|name| name.starts_with("ld-linux")), "{names:?}");
    }

    #[test]
    fn a_program_runs_without_its_symbols() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("program");
        let whole = fs::read(std::env::current_exe().unwrap()).unwrap();
        let (before, bytes) = (whole.len(), without_symbols(whole));
        assert!(bytes.len() < before, "a test program has some");
        fs::write(&path, &bytes).unwrap();
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let run = || std::process::Command::new(&path).arg("--list").output();
        let mut ended = run();
        // A program that another test starts at this moment may have the file open still.
        while ended.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::ExecutableFileBusy) {
            ended = run();
        }
        assert!(ended.unwrap().status.success());
        assert_eq!(
            (without_symbols(bytes.clone()) == bytes, without_symbols(b"#!/bin/sh".to_vec())),
            (true, b"#!/bin/sh".to_vec())
        );
    }

    #[test]
    fn what_is_cut_off_or_no_program_has_no_needs() {
        let bytes = fs::read("/bin/sh").unwrap();
        assert_eq!(needs(b"#!/bin/sh"), None);
        for len in (0..bytes.len().min(5000)).step_by(7) {
            let _ = needs(&bytes[..len]);
        }
        let mut damaged = bytes[..2000.min(bytes.len())].to_vec();
        for at in 6..damaged.len() {
            damaged[at] = 0xff;
            let _ = needs(&damaged);
        }
    }
}
