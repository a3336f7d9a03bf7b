//! A volume's data, decrypted, as they are read and written while nobody uses them.

use std::io;

use super::cipher::Cipher;
use super::cow::Blocks;
use super::luks::{Data, Storage};
use crate::sys::zero;

pub(super) struct Payload<S> {
    pub(super) file: S,
    pub(super) cipher: Cipher,
    pub(super) data: Data,
}

/// Whole sectors alone are read and written.
impl<S: Storage> Blocks for Payload<S> {
    fn read_at(&mut self, at: u64, into: &mut [u8]) -> io::Result<()> {
        self.file.read_at(into, self.data.below(at))?;
        self.cipher.decrypt(self.data.for_cipher(at), into);
        Ok(())
    }

    fn write_at(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let mut copy = bytes.to_vec();
        self.cipher.encrypt(self.data.for_cipher(at), &mut copy);
        let written = self.file.write_at(&copy, self.data.below(at));
        zero(&mut copy);
        written
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync()
    }

    fn cut(&mut self, len: u64) {
        self.file.cut(self.data.below(len));
    }
}
