//! A disk that lives in memory.

use std::fs::File;

use crate::sys::anonymous_file;

/// Makes a file of `len` zero bytes that lies in memory and has no name, for [`Disk::from_file`](crate::Disk::from_file).
///
/// # Panics
/// If the host cannot make it.
pub fn memory_disk(len: u64) -> File {
    anonymous_file(len).expect("the host provides a file in memory")
}
