//! What a header lies on: a file, or what a test makes of one.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

pub(crate) trait Storage {
    /// Fills `into`, or fails.
    fn read_at(&self, into: &mut [u8], at: u64) -> io::Result<()>;
    /// Writes all of `bytes`.
    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()>;
    /// Makes what was written stable.
    fn sync(&self) -> io::Result<()>;
    /// Makes it no longer than that, if it can be.
    fn cut(&self, _len: u64) {}
}

/// A new file, which is made stable as a whole at its end.
pub(crate) struct NewFile<'a>(pub(crate) &'a File);

impl Storage for NewFile<'_> {
    fn read_at(&self, into: &mut [u8], at: u64) -> io::Result<()> {
        self.0.read_exact_at(into, at)
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, at)
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

impl<T: Storage> Storage for &T {
    fn read_at(&self, into: &mut [u8], at: u64) -> io::Result<()> {
        (*self).read_at(into, at)
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        (*self).write_at(bytes, at)
    }

    fn sync(&self) -> io::Result<()> {
        (*self).sync()
    }

    fn cut(&self, len: u64) {
        (*self).cut(len);
    }
}

impl Storage for File {
    fn read_at(&self, into: &mut [u8], at: u64) -> io::Result<()> {
        self.read_exact_at(into, at)
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.write_all_at(bytes, at)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn cut(&self, len: u64) {
        if self.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.len() > len) {
            let _ = self.set_len(len);
        }
    }
}
