//! Disks on files and block devices: data by io_uring if the host has it, otherwise by ordinary system calls, which never block
//! the I/O thread.

mod abandoned;
mod batches;
mod direct;
mod engine;
mod helper;
mod medium_file;
mod ring;

pub use abandoned::{abandoned_threads, abandoned_transfers};
#[cfg(feature = "volume")]
pub(crate) use engine::Claim;
pub use engine::FileBackend;
pub(super) use medium_file::DiskFile;
