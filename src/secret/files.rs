//! Files of keys: read if nobody else may change them, and written whole.

use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::{no_random, refused};
use crate::error::Result;
use crate::sys::{LockedBytes, folder_of, give_name, nameless_file, open_whole, random_bytes};

/// Whether others may read a file.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Secrecy {
    Public,
    Private,
}

/// Nobody but the owner reads and writes.
pub(super) const MODE: u32 = 0o600;
/// What nobody may do with the file of a private key: all of others, and writing by the group.
const FORBIDDEN: u32 = 0o027;

/// What a file holds, which is at most `most` bytes.
pub(super) fn read_bounded(path: &Path, most: usize, secrecy: Secrecy) -> Result<LockedBytes> {
    let unreadable = |e: io::Error| refused("it cannot be read").with_source(e);
    let mut file = open_whole(path).map_err(unreadable)?;
    if secrecy == Secrecy::Private {
        check_mode(&file.metadata().map_err(unreadable)?)?;
    }
    let bytes = LockedBytes::read(&mut file, most).map_err(unreadable)?;
    if bytes.len() > most {
        return Err(refused(format!("it has more than {most} bytes, which no key has")));
    }
    Ok(bytes)
}

/// A pipe has a mode as well, but it is nobody's unless it has a name.
fn check_mode(about: &Metadata) -> Result<()> {
    let mode = about.mode() & 0o777;
    if !about.is_file() || mode & FORBIDDEN == 0 {
        return Ok(());
    }
    let whom = if mode & 0o022 == 0 { "read by others" } else { "changed by others" };
    Err(refused(format!("it can be {whom}: its mode is {mode:04o}, allowed are 0600 and, for a service's group, 0640")))
}

/// Makes a new file that is whole or not there, and on storage.
pub(super) fn create(path: &Path, bytes: &[u8]) -> Result<()> {
    let failed = |e: io::Error| refused("it cannot be made").with_source(e);
    if path.file_name().is_none() {
        return Err(refused("its path has no file's name"));
    }
    let folder = File::open(folder_of(path)).map_err(failed)?;
    let nameless = nameless_file(folder_of(path), MODE);
    let made = match nameless {
        Ok(mut file) => write(&mut file, bytes).and_then(|()| give_name(&file, path)),
        Err(_) => create_beside(path, &beside(path)?, bytes),
    };
    made.and_then(|()| folder.sync_all()).map_err(failed)
}

/// On a file system that has no files without names.
fn create_beside(path: &Path, beside: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = new_file(beside)?;
    let made = write(&mut file, bytes).and_then(|()| fs::hard_link(beside, path));
    fs::remove_file(beside).and(made)
}

fn write(file: &mut File, bytes: &[u8]) -> io::Result<()> {
    file.write_all(bytes)?;
    file.sync_all()
}

/// A file that was not there before.
pub(super) fn new_file(path: &Path) -> io::Result<File> {
    File::options().write(true).create_new(true).mode(MODE).open(path)
}

/// A hidden name beside a file that nobody else has.
fn beside(path: &Path) -> Result<PathBuf> {
    let mut random = [0; 8];
    random_bytes(&mut random).map_err(no_random)?;
    Ok(hidden(path, &format!("{:016x}.new", u64::from_ne_bytes(random))))
}

/// A hidden name beside a file.
pub(super) fn hidden(path: &Path, end: &str) -> PathBuf {
    let mut hidden = OsString::from(".");
    hidden.push(path.file_name().unwrap_or_default());
    hidden.push(".");
    hidden.push(end);
    path.with_file_name(hidden)
}
