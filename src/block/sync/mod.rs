//! The synchronous engine: a file or a block device, by ordinary system calls that never block the I/O thread.

mod engine;
mod file;
mod helper;

pub use engine::FileBackend;
pub(super) use file::DiskFile;
