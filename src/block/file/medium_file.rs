//! A disk's file: what is done to it, each call blocking until it is done.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;

use crate::block::backend::{ByteRange, Operation};
use crate::block::in_use::InUse;
use crate::block::medium;
use crate::error::Result;
use crate::sys::{ZeroMode, is_in_memory, unlock, waits_always, zero_range};

/// How much is written at once if zeros must be written.
const ZEROS_LEN: usize = 64 << 10;
static ZEROS: Zeros = Zeros([0; ZEROS_LEN]);

/// Aligned for direct I/O.
#[repr(align(4096))]
struct Zeros([u8; ZEROS_LEN]);

/// An open file, with the lock that keeps other VMs away from it.
///
/// The lock goes with the last user of the file, who may be a helper thread in the middle of a write. It is given up
/// explicitly: a child process of the host program may hold a copy of the descriptor for the moment until it executes.
pub(in crate::block) struct DiskFile(pub(super) File, Option<InUse>);

impl DiskFile {
    pub(in crate::block) fn new(file: File) -> Self {
        Self(file, None)
    }

    /// One that was locked for the disk that uses it so.
    pub(in crate::block) fn locked(file: File, in_use: InUse) -> Self {
        Self(file, Some(in_use))
    }

    /// Whoever uses it has written for the last time: from now on others may read it, too.
    #[cfg(feature = "volume")]
    pub(in crate::block) fn only_reads(&self) {
        if let Some(in_use) = &self.1 {
            let _ = medium::lock("", &self.0, true);
            in_use.only_reads();
        }
    }

    /// Whether it was locked for a disk, and is this file.
    #[cfg(feature = "volume")]
    pub(in crate::block) fn is_locked_as(&self, other: &File) -> Result<bool> {
        let identity = medium::Identity::of(&medium::metadata("from a file", other)?);
        Ok(self.1.as_ref().is_some_and(|in_use| in_use.is_on(identity)))
    }

    /// Moves data if that takes no waiting; says whether all of them were moved.
    ///
    /// # Errors
    /// `WouldBlock` if it takes waiting, and what the host reports.
    pub(super) fn try_now(&self, operation: &mut Operation) -> io::Result<bool> {
        match operation {
            Operation::Read { at, into } => Ok(into.read_from_now(&self.0, *at)? == into.len()),
            Operation::Write { at, from, .. } => Ok(from.write_to_now(&self.0, *at)? == from.len()),
            _ => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    /// Whether the file lies in memory, on tmpfs for instance.
    pub(super) fn is_in_memory(&self) -> bool {
        is_in_memory(&self.0)
    }

    /// Why a call that is not to wait waits all the same, or may do so.
    pub(super) fn waits_always(&self) -> Option<String> {
        match waits_always(&self.0) {
            Ok(false) => None,
            Ok(true) => Some("the file is on FUSE, which waits even if it is told not to".to_owned()),
            Err(error) => Some(format!("the host does not say on which file system the file is ({error})")),
        }
    }

    /// The size in whole sectors, in bytes. May wait for the file system.
    pub(super) fn size(&self) -> Result<u64> {
        medium::size("from a file", &self.0)
    }

    /// Carries out an operation.
    pub(super) fn run(&self, operation: &mut Operation) -> io::Result<()> {
        match operation {
            Operation::Read { at, into } => into.read_from(&self.0, *at),
            Operation::Write { at, from, stable } => {
                from.write_to(&self.0, *at)?;
                self.settle(*stable)
            }
            Operation::Flush => self.0.sync_data(),
            Operation::Discard(range) => self.discard(*range),
            Operation::WriteZeroes { range, unmap, stable } => {
                self.write_zeroes(*range, *unmap)?;
                self.settle(*stable)
            }
        }
    }

    fn settle(&self, stable: bool) -> io::Result<()> {
        if stable { self.0.sync_data() } else { Ok(()) }
    }

    fn discard(&self, range: ByteRange) -> io::Result<()> {
        match zero_range(&self.0, range.at, range.len, ZeroMode::Deallocate) {
            // Only a hint: a file system that cannot give storage back just keeps it.
            Err(e) if is_unsupported(&e) => Ok(()),
            other => other,
        }
    }

    fn write_zeroes(&self, range: ByteRange, unmap: bool) -> io::Result<()> {
        let modes: &[_] = if unmap { &[ZeroMode::Deallocate, ZeroMode::Keep] } else { &[ZeroMode::Keep] };
        for mode in modes {
            match zero_range(&self.0, range.at, range.len, *mode) {
                Err(e) if is_unsupported(&e) => {}
                other => return other,
            }
        }
        self.write_zeros(range)
    }

    fn write_zeros(&self, range: ByteRange) -> io::Result<()> {
        let ByteRange { mut at, mut len } = range;
        while len > 0 {
            let part = usize::try_from(len).unwrap_or(usize::MAX).min(ZEROS_LEN);
            self.0.write_all_at(ZEROS.0.get(..part).unwrap_or(&ZEROS.0), at)?;
            at = at.saturating_add(part as u64);
            len = len.saturating_sub(part as u64);
        }
        Ok(())
    }
}

/// Whether the file system or the device has no such operation, at all or for this range: a device with blocks of 4096 bytes
/// answers EINVAL to one that is not aligned to them.
fn is_unsupported(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::Unsupported | io::ErrorKind::InvalidInput)
}

impl AsFd for DiskFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Drop for DiskFile {
    fn drop(&mut self) {
        // A copy of the open file has the same lock, which another disk that only reads may still need.
        if self.1.as_ref().is_none_or(InUse::is_alone) {
            unlock(&self.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> DiskFile {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&[0xaa; 3 * 65536], 0).unwrap();
        DiskFile::new(file)
    }

    fn bytes(file: &DiskFile) -> Vec<u8> {
        let mut bytes = vec![0; 3 * 65536];
        file.0.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    }

    fn zeroed(bytes: &[u8], range: ByteRange) -> bool {
        let (start, end) = (range.at as usize, (range.at + range.len) as usize);
        let inside = bytes[start..end].iter().all(|byte| *byte == 0);
        inside && bytes[..start].iter().chain(&bytes[end..]).all(|byte| *byte == 0xaa)
    }

    #[test]
    fn zeroes_are_exactly_where_they_were_asked_for() {
        let range = ByteRange { at: 512, len: 65536 + 1024 };
        for unmap in [false, true] {
            let file = file();
            file.run(&mut Operation::WriteZeroes { range, unmap, stable: unmap }).unwrap();
            assert!(zeroed(&bytes(&file), range));
        }
        let file = file();
        file.write_zeros(range).unwrap();
        assert!(zeroed(&bytes(&file), range));
    }

    #[test]
    fn discard_keeps_the_size_and_the_neighbours() {
        let file = file();
        file.run(&mut Operation::Discard(ByteRange { at: 65536, len: 65536 })).unwrap();
        let bytes = bytes(&file);
        assert!(bytes[..65536].iter().chain(&bytes[2 * 65536..]).all(|byte| *byte == 0xaa));
        assert_eq!(file.0.metadata().unwrap().len(), 3 * 65536);
    }

    #[test]
    fn zeroes_that_a_device_takes_only_in_larger_blocks_are_written() {
        for error in [io::ErrorKind::Unsupported.into(), io::Error::from_raw_os_error(libc::EINVAL)] {
            assert!(is_unsupported(&error), "{error}");
        }
        assert!(!is_unsupported(&io::Error::from_raw_os_error(libc::ENOSPC)));
    }
}
