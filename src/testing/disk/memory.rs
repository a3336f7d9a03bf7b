//! A disk that lives in memory.

use std::fs::File;

use crate::sys::anonymous_file;

/// A file without a name, in memory, of `len` bytes, all zero; for [`Disk::from_file`](crate::Disk::from_file).
///
/// # Panics
/// Where the host gives none.
pub fn memory_disk(len: u64) -> File {
    anonymous_file(len).expect("the host provides a file in memory")
}
