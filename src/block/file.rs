//! The synchronous backend: a file or a block device, by ordinary system calls.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use super::backend::{Backend, ByteRange, Operation};
use crate::sys::{ZeroMode, zero_range};

/// How much is written at once where zeros must be written.
const ZEROS: &[u8] = &[0; 64 << 10];

pub(super) struct FileBackend {
    file: File,
}

impl FileBackend {
    pub(super) fn new(file: File) -> Self {
        Self { file }
    }

    fn discard(&self, range: ByteRange) -> io::Result<()> {
        match zero_range(&self.file, range.offset, range.len, ZeroMode::Deallocate) {
            // Only a hint: a file system that cannot give storage back just keeps it.
            Err(e) if e.kind() == io::ErrorKind::Unsupported => Ok(()),
            other => other,
        }
    }

    fn write_zeroes(&self, range: ByteRange, unmap: bool) -> io::Result<()> {
        let modes: &[_] = if unmap { &[ZeroMode::Deallocate, ZeroMode::Keep] } else { &[ZeroMode::Keep] };
        for mode in modes {
            match zero_range(&self.file, range.offset, range.len, *mode) {
                Err(e) if e.kind() == io::ErrorKind::Unsupported => {}
                other => return other,
            }
        }
        self.write_zeros(range)
    }

    fn write_zeros(&self, range: ByteRange) -> io::Result<()> {
        let ByteRange { mut offset, mut len } = range;
        while len > 0 {
            let part = usize::try_from(len).unwrap_or(usize::MAX).min(ZEROS.len());
            self.file.write_all_at(ZEROS.get(..part).unwrap_or(ZEROS), offset)?;
            offset = offset.saturating_add(part as u64);
            len = len.saturating_sub(part as u64);
        }
        Ok(())
    }
}

impl Backend for FileBackend {
    fn run(&mut self, operation: &Operation) -> io::Result<()> {
        match operation {
            Operation::Read { offset, data } => data.fill_from(self.file.as_fd(), *offset),
            Operation::Write { offset, data } => data.drain_to(self.file.as_fd(), *offset),
            Operation::Flush => self.file.sync_data(),
            Operation::Discard(range) => self.discard(*range),
            Operation::WriteZeroes { range, unmap } => self.write_zeroes(*range, *unmap),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backend() -> FileBackend {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&[0xaa; 3 * 65536], 0).unwrap();
        FileBackend::new(file)
    }

    fn bytes(backend: &FileBackend) -> Vec<u8> {
        let mut bytes = vec![0; 3 * 65536];
        backend.file.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    }

    fn zeroed(bytes: &[u8], range: ByteRange) -> bool {
        let (start, end) = (range.offset as usize, (range.offset + range.len) as usize);
        let inside = bytes[start..end].iter().all(|byte| *byte == 0);
        inside && bytes[..start].iter().chain(&bytes[end..]).all(|byte| *byte == 0xaa)
    }

    #[test]
    fn zeroes_are_exactly_where_they_were_asked_for() {
        let range = ByteRange { offset: 512, len: 65536 + 1024 };
        for unmap in [false, true] {
            let mut backend = backend();
            backend.run(&Operation::WriteZeroes { range, unmap }).unwrap();
            assert!(zeroed(&bytes(&backend), range));
        }
        let backend = backend();
        backend.write_zeros(range).unwrap();
        assert!(zeroed(&bytes(&backend), range));
    }

    #[test]
    fn discard_keeps_the_size_and_the_neighbours() {
        let mut backend = backend();
        let range = ByteRange { offset: 65536, len: 65536 };
        backend.run(&Operation::Discard(range)).unwrap();
        let bytes = bytes(&backend);
        assert!(bytes[..65536].iter().chain(&bytes[2 * 65536..]).all(|byte| *byte == 0xaa));
        assert_eq!(backend.file.metadata().unwrap().len(), 3 * 65536);
    }
}
