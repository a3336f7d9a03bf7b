//! The bytes of a source: unpacked, counted, and digested.

use std::io::{self, BufRead, BufReader, Chain, Cursor, Read};

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::{FrameDecoder, StreamingDecoder};
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
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Ok(Box::new(Frames { decoder: None, packed: Some(packed) })),
        [0xfd, b'7', b'z', b'X', b'Z', ..] => Err(Fault::new("packed by xz; allowed are gzip, zstd, and no packing")),
        [b'B', b'Z', b'h', ..] => Err(Fault::new("packed by bzip2; allowed are gzip, zstd, and no packing")),
        _ => Ok(Box::new(packed)),
    }
}

/// A frame whose number was read already.
type Frame<R> = Chain<Cursor<[u8; 4]>, R>;

/// Zstandard's frames one after the other, as some layers have them. Those that are to be skipped are.
struct Frames<R: BufRead> {
    decoder: Option<StreamingDecoder<Frame<R>, FrameDecoder>>,
    /// Between frames.
    packed: Option<R>,
}

impl<R: BufRead> Read for Frames<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(mut decoder) = self.decoder.take() {
                let read = decoder.read(buffer)?;
                if read > 0 || buffer.is_empty() {
                    self.decoder = Some(decoder);
                    return Ok(read);
                }
                self.packed = Some(decoder.into_inner().into_inner().1);
            }
            let Some(mut packed) = self.packed.take() else { return Ok(0) };
            if packed.fill_buf()?.is_empty() {
                return Ok(0);
            }
            let mut number = [0; 4];
            packed.read_exact(&mut number)?;
            if matches!(number, [0x50..=0x5f, 0x2a, 0x4d, 0x18]) {
                skip(&mut packed)?;
                self.packed = Some(packed);
            } else {
                let frame = Cursor::new(number).chain(packed);
                self.decoder = Some(StreamingDecoder::new(frame).map_err(io::Error::other)?);
            }
        }
    }
}

/// Passes over what follows the number of a frame that is to be skipped: a length of 4 bytes, and so many bytes.
fn skip(packed: &mut impl Read) -> io::Result<()> {
    let mut len = [0; 4];
    packed.read_exact(&mut len)?;
    let len = u64::from(u32::from_le_bytes(len));
    if io::copy(&mut packed.take(len), &mut io::sink())? != len {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "a frame of Zstandard is cut off"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use ruzstd::encoding::{CompressionLevel, compress_to_vec};

    use super::*;

    fn unpack(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut all = Vec::new();
        unpacked(bytes).map_err(io::Error::other)?.read_to_end(&mut all).map(|_| all)
    }

    #[test]
    fn frames_of_zstandard_are_unpacked_one_after_the_other() {
        let frame = |bytes: &[u8]| compress_to_vec(bytes, CompressionLevel::Fastest);
        let skip = b"\x5a\x2a\x4d\x18\x03\0\0\0xyz";
        let all = [frame(&[7; 100_000]), skip.to_vec(), frame(b"more"), skip.to_vec()].concat();
        assert_eq!(unpack(&all).unwrap(), [&[7; 100_000][..], b"more"].concat());
        for cut in [all.len() - 1, all.len() - skip.len() - 2] {
            assert!(unpack(&all[..cut]).is_err(), "{cut}");
        }
        assert!(unpack(&[&frame(b"x")[..], b"rubbish"].concat()).is_err());
    }
}
