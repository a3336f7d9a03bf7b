//! A volume's data, decrypted, as they are read and written while nobody uses them.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::cipher::Cipher;
use super::cow::Blocks;
use super::luks::Data;
use crate::sys::zero;

pub(super) struct Payload<'a> {
    pub(super) file: &'a File,
    pub(super) cipher: Cipher,
    pub(super) data: Data,
}

/// Whole sectors alone are read and written.
impl Blocks for Payload<'_> {
    fn read_at(&mut self, at: u64, into: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(into, self.data.below(at))?;
        self.cipher.decrypt(self.data.for_cipher(at), into);
        Ok(())
    }

    fn write_at(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let mut copy = bytes.to_vec();
        self.cipher.encrypt(self.data.for_cipher(at), &mut copy);
        let written = self.file.write_all_at(&copy, self.data.below(at));
        zero(&mut copy);
        written
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }
}
