//! A layer's file while nobody uses it as a disk.

use std::io;

/// What a layer lies on while it is made or opened: the data of a volume, decrypted.
pub(crate) trait Blocks {
    fn read_at(&mut self, at: u64, into: &mut [u8]) -> io::Result<()>;
    fn write_at(&mut self, at: u64, bytes: &[u8]) -> io::Result<()>;
    fn sync(&mut self) -> io::Result<()>;
    /// Gives back what lies behind, which nothing names, if it can be.
    fn cut(&mut self, _len: u64) {}
}
