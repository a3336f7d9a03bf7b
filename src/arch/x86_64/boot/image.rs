//! A kernel or an initrd as a file on the host: opened safely, and told apart by its first bytes.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind, Result};
use crate::sys::next_data;

/// The offset of a bzImage's magic (Documentation/arch/x86/boot.rst, "The Real-Mode Kernel Header").
const HEADER_MAGIC_OFFSET: u64 = 0x202;
const HEADER_MAGIC: &[u8] = b"HdrS";
const ELF_MAGIC: &[u8] = b"\x7fELF";
/// A bzImage starts like a DOS program, for UEFI.
const DOS_MAGIC: &[u8] = b"MZ";

/// Other formats that people pass by mistake, by their first bytes.
const KNOWN: &[(&[u8], &str)] = &[
    (&[0x1f, 0x8b], "it is compressed by gzip"),
    (&[0xfd, b'7', b'z', b'X', b'Z'], "it is compressed by xz"),
    (&[0x28, 0xb5, 0x2f, 0xfd], "it is compressed by zstd"),
    (&[0x02, 0x21, 0x4c, 0x18], "it is compressed by lz4"),
    (b"BZh", "it is compressed by bzip2"),
    (b"070701", "it is a cpio archive, as an initrd is"),
    (b"QFI\xfb", "it is a qcow2 disk image"),
    (b"!<arch>\n", "it is an archive, perhaps a Debian package"),
];

/// The formats of kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Elf,
    BzImage,
}

/// An opened file of known size.
pub(super) struct Image {
    what: &'static str,
    path: PathBuf,
    file: File,
    len: u64,
}

impl Image {
    /// Opens a regular file that isn't empty; `what` names its role in errors.
    pub(super) fn open(what: &'static str, path: &Path) -> Result<Self> {
        let name = || format!("{what} {}", path.display());
        let failed = |verb: &str, cause| {
            Error::new(ErrorKind::BootImage, format!("cannot {verb} {}", name())).with_source(cause)
        };
        // Opening a FIFO without a writer would hang; a terminal would become ours.
        let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
        let file =
            OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(|cause| failed("open", cause))?;
        let metadata = file.metadata().map_err(|cause| failed("examine", cause))?;
        let image = Self { what, path: path.to_owned(), file, len: metadata.len() };
        match kind(metadata.file_type()) {
            Some(kind) => Err(image.refuse(format!("is {kind}, allowed is a regular file"))),
            None if image.len == 0 => Err(image.refuse("is empty")),
            None => Ok(image),
        }
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    pub(super) fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// The next range between `from` and `end` that the file has data in, and makes it the file's position; `None` if there are
    /// only holes.
    pub(super) fn next_data(&mut self, from: u64, end: u64) -> Result<Option<(u64, u64)>> {
        let refused = |cause| self.refuse(format!("cannot be read at offset={from:#x}")).with_source(cause);
        let found = next_data(&self.file, from, end).map_err(refused)?;
        if found.is_none() && self.file.metadata().map_err(refused)?.len() < self.len {
            return Err(self.refuse("became shorter while it was loaded"));
        }
        Ok(found)
    }

    /// Fills `bytes` from `offset` on.
    pub(super) fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<()> {
        self.file.read_exact_at(bytes, offset).map_err(|cause| {
            self.refuse(format!("cannot be read at offset={offset:#x} len={:#x}", bytes.len())).with_source(cause)
        })
    }

    /// The format of kernel that it has.
    pub(super) fn format(&self) -> Result<Format> {
        let first = self.start()?;
        if first.starts_with(ELF_MAGIC) {
            return Ok(Format::Elf);
        }
        let magic_end = HEADER_MAGIC_OFFSET.saturating_add(HEADER_MAGIC.len() as u64);
        if self.len >= magic_end {
            let mut magic = [0; HEADER_MAGIC.len()];
            self.read(HEADER_MAGIC_OFFSET, &mut magic)?;
            if magic == HEADER_MAGIC {
                return Ok(Format::BzImage);
            }
        } else if first.starts_with(DOS_MAGIC) {
            let len = self.len;
            return Err(self.refuse(format!("is truncated: a bzImage has {magic_end} bytes at least, this one {len}")));
        }
        let found = describe(&first);
        Err(self.refuse(format!("is neither a bzImage nor an ELF image: {found}")))
    }

    /// The error for this file.
    pub(super) fn refuse(&self, why: impl AsRef<str>) -> Error {
        let message = format!("{} {} {}", self.what, self.path.display(), why.as_ref());
        Error::new(ErrorKind::BootImage, message)
    }

    fn start(&self) -> Result<Vec<u8>> {
        let mut first = vec![0; self.len.min(16) as usize];
        self.read(0, &mut first)?;
        Ok(first)
    }
}

fn kind(kind: std::fs::FileType) -> Option<&'static str> {
    match kind {
        kind if kind.is_file() => None,
        kind if kind.is_dir() => Some("a directory"),
        kind if kind.is_fifo() => Some("a FIFO"),
        kind if kind.is_char_device() => Some("a character device"),
        kind if kind.is_block_device() => Some("a block device"),
        _ => Some("no file"),
    }
}

fn describe(first: &[u8]) -> String {
    if let Some((_, what)) = KNOWN.iter().find(|(magic, _)| first.starts_with(magic)) {
        return (*what).to_owned();
    }
    match std::str::from_utf8(first) {
        Ok(text) if !text.contains(|c: char| c.is_control() && !c.is_whitespace()) => {
            format!("it is a text that starts with {text:?}")
        }
        _ => format!("it starts with the bytes {first:02x?}"),
    }
}
