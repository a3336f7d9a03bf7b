//! Images of kernels for the tests, made here byte by byte.

use std::path::PathBuf;

use crate::memory::{GuestAddress, GuestMemory};

/// Memory is filled with this, so that a write of one byte too many shows.
pub(super) const PATTERN: u8 = 0xa5;

/// A segment of an ELF image; the defaults of `file_size` and `memory_size` are the length of `bytes`.
#[derive(Clone, Default)]
pub(super) struct Part {
    pub(super) kind: u32,
    pub(super) start: u64,
    pub(super) bytes: Vec<u8>,
    pub(super) offset: Option<u64>,
    pub(super) file_size: Option<u64>,
    pub(super) memory_size: Option<u64>,
}

impl Part {
    pub(super) fn load(start: u64, bytes: &[u8]) -> Self {
        Self { kind: 1, start, bytes: bytes.to_vec(), ..Self::default() }
    }

    pub(super) fn notes(bytes: &[u8]) -> Self {
        Self { kind: 4, bytes: bytes.to_vec(), ..Self::default() }
    }
}

/// An ELF image for x86_64: header, program headers, then the parts' bytes.
pub(super) fn elf(entry: u64, parts: &[Part]) -> Vec<u8> {
    let mut image = b"\x7fELF\x02\x01\x01".to_vec();
    image.resize(16, 0);
    image.extend([2u16, 62].map(u16::to_le_bytes).concat());
    image.extend(1u32.to_le_bytes());
    image.extend([entry, 64, 0].map(u64::to_le_bytes).concat());
    image.extend(0u32.to_le_bytes());
    image.extend([64, 56, parts.len() as u16, 64, 0, 0].map(u16::to_le_bytes).concat());
    let mut offset = image.len() + parts.len() * 56;
    for part in parts {
        let len = part.bytes.len() as u64;
        image.extend([part.kind, 7].map(u32::to_le_bytes).concat());
        let at = part.offset.unwrap_or(offset as u64);
        let (file, memory) = (part.file_size.unwrap_or(len), part.memory_size.unwrap_or(len));
        image.extend([at, part.start, part.start, file, memory, 4].map(u64::to_le_bytes).concat());
        offset += part.bytes.len();
    }
    image.extend(parts.iter().flat_map(|part| part.bytes.clone()));
    image
}

/// A note with its padding.
pub(super) fn note(kind: u32, owner: &[u8], desc: &[u8]) -> Vec<u8> {
    let mut note = [owner.len() as u32, desc.len() as u32, kind].map(u32::to_le_bytes).concat();
    for part in [owner, desc] {
        note.extend(part);
        note.resize(note.len().next_multiple_of(4), 0);
    }
    note
}

/// The header of a bzImage.
#[derive(Clone)]
pub(super) struct BzHeader {
    pub(super) sectors: u8,
    pub(super) version: u16,
    pub(super) loadflags: u8,
    pub(super) xloadflags: u16,
    pub(super) syssize: u32,
    pub(super) pref_address: u64,
    pub(super) init_size: u32,
    pub(super) alignment: u32,
    pub(super) relocatable: u8,
    pub(super) initrd_addr_max: u32,
    pub(super) cmdline_size: u32,
}

/// The bytes of the protected-mode kernel in [`bzimage`].
pub(super) const PAYLOAD: usize = 0x1000;

impl Default for BzHeader {
    fn default() -> Self {
        Self {
            sectors: 1,
            version: 0x20f,
            loadflags: 1,
            xloadflags: 1,
            syssize: PAYLOAD as u32 / 16,
            pref_address: 0x20_0000,
            init_size: 0x3000,
            alignment: 0x20_0000,
            relocatable: 1,
            initrd_addr_max: 0x7fff_ffff,
            cmdline_size: 2047,
        }
    }
}

/// A bzImage with a payload of counting bytes. The offsets are those of the boot protocol's header.
pub(super) fn bzimage(header: &BzHeader) -> Vec<u8> {
    let setup = (usize::from(header.sectors) + 1) * 512;
    let mut image = vec![0; setup];
    let mut put = |offset: usize, bytes: &[u8]| image[offset..offset + bytes.len()].copy_from_slice(bytes);
    put(0, b"MZ");
    put(0x1f1, &[header.sectors]);
    put(0x1f4, &header.syssize.to_le_bytes());
    put(0x1fe, &[0x55, 0xaa, 0xeb, 0x6a]);
    put(0x202, b"HdrS");
    put(0x206, &header.version.to_le_bytes());
    put(0x211, &[header.loadflags]);
    put(0x22c, &header.initrd_addr_max.to_le_bytes());
    put(0x230, &header.alignment.to_le_bytes());
    put(0x234, &[header.relocatable]);
    put(0x236, &header.xloadflags.to_le_bytes());
    put(0x238, &header.cmdline_size.to_le_bytes());
    put(0x258, &header.pref_address.to_le_bytes());
    put(0x260, &header.init_size.to_le_bytes());
    image.extend((0..PAYLOAD).map(|byte| byte as u8));
    image
}

/// Files that go away with the test.
pub(super) struct Files(tempfile::TempDir);

impl Files {
    pub(super) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(super) fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        std::fs::write(self.path(name), bytes).unwrap();
        self.path(name)
    }
}

/// One region of memory from 0 on, full of the pattern.
pub(super) fn memory(mib: u64) -> GuestMemory {
    let memory = GuestMemory::anonymous(&[(GuestAddress(0), mib << 20)]).unwrap();
    memory.write(GuestAddress(0), &vec![PATTERN; (mib << 20) as usize]).unwrap();
    memory
}

pub(super) fn bytes(memory: &GuestMemory, start: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    memory.read(GuestAddress(start), &mut bytes).unwrap();
    bytes
}

pub(super) fn u64_at(memory: &GuestMemory, start: u64) -> u64 {
    memory.read_value(GuestAddress(start)).unwrap()
}

pub(super) fn u32_at(memory: &GuestMemory, start: u64) -> u32 {
    memory.read_value(GuestAddress(start)).unwrap()
}
