//! The bytes of a source: unpacked, counted, and digested.

use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::StreamingDecoder;
use sha2::{Digest, Sha256};

use crate::fault::{Context, Fault, Result};

/// A stream whose bytes are digested as they are read, and which may have so many at most.
pub struct Digesting<R> {
    inner: R,
    digest: Sha256,
    read: u64,
    most: u64,
}

impl<R: Read> Digesting<R> {
    /// Allows `most` bytes of `inner`.
    pub fn new(inner: R, most: u64) -> Self {
        Self { inner, digest: Sha256::new(), read: 0, most }
    }

    /// Reads what is left, and gives the digest of all, as `sha256:HEX`.
    ///
    /// # Errors
    /// Those of the stream.
    pub fn finish(mut self) -> io::Result<String> {
        io::copy(&mut self, &mut io::sink())?;
        Ok(named(self.digest))
    }
}

impl<R: Read> Read for Digesting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.read = self.read.saturating_add(read as u64);
        if self.read > self.most {
            return Err(io::Error::other(format!("it has more than the {} bytes that are allowed", self.most)));
        }
        self.digest.update(buffer.get(..read).unwrap_or_default());
        Ok(read)
    }
}

/// A digest as OCI writes it.
pub fn named(digest: Sha256) -> String {
    let hex: String = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// What the bytes unpack to: gzip or Zstandard, known by how they begin, or themselves.
///
/// # Errors
/// If they are packed in another way; those of the stream.
pub fn unpacked<'a>(packed: impl Read + 'a) -> Result<Box<dyn Read + 'a>> {
    let mut packed = BufReader::with_capacity(64 << 10, packed);
    let begin = packed.fill_buf().context("cannot read")?;
    match begin {
        [0x1f, 0x8b, ..] => Ok(Box::new(MultiGzDecoder::new(packed))),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Ok(Box::new(StreamingDecoder::new(packed).context("not Zstandard")?)),
        [0xfd, b'7', b'z', b'X', b'Z', ..] => Err(Fault::new("packed by xz; allowed are gzip, zstd, and no packing")),
        [b'B', b'Z', b'h', ..] => Err(Fault::new("packed by bzip2; allowed are gzip, zstd, and no packing")),
        _ => Ok(Box::new(packed)),
    }
}
