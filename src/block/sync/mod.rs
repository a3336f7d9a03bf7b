//! The synchronous engine: a file or a block device, by ordinary system calls that never block the I/O thread.

mod abandoned;
mod engine;
mod file;
mod helper;

pub use abandoned::abandoned_threads;
pub use engine::FileBackend;
pub(super) use file::DiskFile;
