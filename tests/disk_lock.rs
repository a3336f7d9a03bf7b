//! A disk's file belongs to one VM that writes, or to several that only read, however it was opened.
#![allow(unsafe_code, reason = "forks, for which there is no safe interface")]

use std::fs::File;

use vmcell::virtio::VirtioDevice;
use vmcell::{Disk, ErrorKind, Result};

fn named() -> tempfile::NamedTempFile {
    let named = tempfile::NamedTempFile::new().unwrap();
    named.as_file().set_len(4096).unwrap();
    named
}

fn on(file: &File, read_only: bool) -> Result<Box<dyn VirtioDevice>> {
    Disk::from_file(file.try_clone().unwrap())?.read_only(read_only).into_device()
}

#[test]
fn copies_of_one_open_file_are_one_file() {
    let named = named();
    let file = named.as_file();
    for (first, second) in [(false, false), (false, true), (true, false)] {
        let held = on(file, first).unwrap();
        let error = on(file, second).err().expect("it is in use");
        assert_eq!(error.kind(), ErrorKind::Disk);
        assert!(error.to_string().contains("is in use"), "{error}");
        drop(held);
    }
    drop(on(file, false).unwrap());
}

#[test]
fn a_reader_that_ends_leaves_the_lock_to_the_others() {
    let named = named();
    let (first, second) = (on(named.as_file(), true).unwrap(), on(named.as_file(), true).unwrap());
    drop(first);
    // Another process would find the same: the lock of the open file.
    let other = File::options().read(true).write(true).open(named.path()).unwrap();
    assert!(try_write_lock(&other).is_err());
    drop(second);
    try_write_lock(&other).unwrap();
}

fn try_write_lock(file: &File) -> std::io::Result<()> {
    use std::os::fd::AsRawFd;
    // SAFETY: all-zero bytes are a valid flock, of the whole file.
    let mut range: libc::flock = unsafe { std::mem::zeroed() };
    range.l_type = libc::F_WRLCK as libc::c_short;
    // SAFETY: the descriptor is open, and the pointer is valid for the call.
    let done = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &range) };
    if done == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

#[test]
fn a_child_that_has_not_executed_yet_does_not_hold_the_file_of_a_disk_that_ended() {
    let named = named();
    let disk = Disk::open(named.path()).unwrap().into_device().unwrap();
    // SAFETY: the child only calls what may be called after a fork, until it is killed.
    let child = unsafe { libc::fork() };
    if child == 0 {
        loop {
            // SAFETY: takes nothing.
            unsafe { libc::pause() };
        }
    }
    assert!(child > 0);
    drop(disk);
    let again = Disk::open(named.path()).unwrap().into_device().map(drop);
    // SAFETY: the child is ours, and nobody else waits for it.
    unsafe {
        libc::kill(child, libc::SIGKILL);
        libc::waitpid(child, std::ptr::null_mut(), 0);
    }
    again.unwrap();
}
