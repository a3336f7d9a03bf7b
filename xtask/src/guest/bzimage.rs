//! A bzImage's payload: the compressed ELF kernel that it carries. Only reads headers; unpacking is [`super::kernel`]'s.
//! The format: Linux' Documentation/arch/x86/boot.rst.

use crate::exec::{Error, Result};

const SETUP_SECTS: usize = 0x1f1;
const MAGIC: usize = 0x202;
const PAYLOAD_OFFSET: usize = 0x248;
const PAYLOAD_LENGTH: usize = 0x24c;

/// How a payload is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    Gzip,
    Xz,
    Zstd,
    Lz4,
}

impl Compression {
    /// The command that unpacks it from standard input.
    pub fn command(self) -> &'static [&'static str] {
        match self {
            Self::Gzip => &["gzip", "-dc"],
            // What follows the first stream is the kernel build's own note of the size.
            Self::Xz => &["xz", "-dc", "--single-stream"],
            Self::Zstd => &["zstd", "-dcq"],
            Self::Lz4 => &["lz4", "-dcq"],
        }
    }
}

/// Is this an ELF file rather than a bzImage?
pub fn is_elf(image: &[u8]) -> bool {
    image.starts_with(b"\x7fELF")
}

/// Finds the payload in a bzImage: how it is compressed, and its bytes.
pub fn payload(image: &[u8]) -> Result<(Compression, &[u8])> {
    if image.get(MAGIC..MAGIC + 4) != Some(b"HdrS") {
        return Err(Error::new("not a bzImage: no HdrS at 0x202"));
    }
    // 0 stands for 4, as old as the format.
    let setup_sects = match image.get(SETUP_SECTS) {
        None | Some(0) => 4,
        Some(&sects) => usize::from(sects),
    };
    let start = (setup_sects + 1) * 512 + field(image, PAYLOAD_OFFSET)?;
    let length = field(image, PAYLOAD_LENGTH)?;
    let bytes = start.checked_add(length).and_then(|end| image.get(start..end));
    let bytes = bytes.ok_or_else(|| Error::new(format!("truncated bzImage: payload at {start:#x}, {length} bytes")))?;
    let compression = match bytes {
        [0x1f, 0x8b, ..] => return Ok((Compression::Gzip, bytes)),
        [0xfd, b'7', b'z', ..] => Compression::Xz,
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Compression::Zstd,
        [0x02, 0x21, 0x4c, 0x18, ..] => Compression::Lz4,
        _ => return Err(Error::new(format!("bzImage payload of an unknown format: {:02x?}", bytes.get(..4)))),
    };
    // The build appends the unpacked size to all but gzip, which carries it itself.
    Ok((compression, &bytes[..bytes.len() - 4]))
}

fn field(image: &[u8], at: usize) -> Result<usize> {
    let bytes = image.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
    bytes.map(|bytes| u32::from_le_bytes(bytes) as usize).ok_or_else(|| Error::new("truncated bzImage: no header"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A bzImage of two set-up sectors whose payload starts 16 bytes into the protected-mode part.
    fn image(payload: &[u8]) -> Vec<u8> {
        let mut image = vec![0_u8; 3 * 512 + 16];
        image[SETUP_SECTS] = 2;
        image[MAGIC..MAGIC + 4].copy_from_slice(b"HdrS");
        image[PAYLOAD_OFFSET..PAYLOAD_OFFSET + 4].copy_from_slice(&16_u32.to_le_bytes());
        image[PAYLOAD_LENGTH..PAYLOAD_LENGTH + 4].copy_from_slice(&(payload.len() as u32).to_le_bytes());
        image.extend_from_slice(payload);
        image
    }

    #[test]
    fn lz4_payload_comes_without_the_appended_size() {
        let image = image(&[0x02, 0x21, 0x4c, 0x18, 9, 9, 1, 2, 3, 4]);
        assert_eq!(payload(&image).unwrap(), (Compression::Lz4, &[0x02, 0x21, 0x4c, 0x18, 9, 9][..]));
    }

    #[test]
    fn gzip_payload_comes_whole() {
        let image = image(&[0x1f, 0x8b, 8, 0, 5, 6, 7, 8]);
        assert_eq!(payload(&image).unwrap().1.len(), 8);
    }

    #[test]
    fn what_is_no_bzimage_is_refused() {
        assert!(payload(b"hello").unwrap_err().to_string().contains("not a bzImage"));
        assert!(payload(&image(b"plain text")).unwrap_err().to_string().contains("unknown format"));
        let mut cut = image(&[0xfd, b'7', b'z', 0, 0, 0, 0, 0]);
        cut.pop();
        assert!(payload(&cut).unwrap_err().to_string().contains("truncated"));
    }
}
