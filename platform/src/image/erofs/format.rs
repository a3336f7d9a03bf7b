//! The parts of an EROFS image as bytes: the superblock, inodes, directories and extended attributes. The format: Linux'
//! fs/erofs/erofs_fs.h and the documentation of EROFS. Only what every kernel since 5.4 reads is written.

use std::collections::BTreeMap;

use crate::image::entry::Attributes;

/// The size of a block.
pub const BLOCK: u64 = 4096;
/// The same, for what is in memory.
pub const BLOCK_LEN: usize = 4096;
/// An inode of the extended form.
pub const INODE: u64 = 64;
/// Inodes are numbered by their place in units of this.
pub const SLOT: u64 = 32;
/// Bytes in front of the extended attributes of an inode.
pub const XATTRS_HEAD: usize = 12;
/// Where the superblock is.
pub const SUPER: usize = 1024;
/// A directory entry without its name.
const ENTRY: usize = 12;
/// The magic number of the superblock.
const MAGIC: u32 = 0xe0f5_e1e2;
/// The superblock has a checksum, and its time is the files'.
const COMPATIBLE: u32 = 1;
/// No blocks belong to an inode.
pub const NO_BLOCK: u32 = u32::MAX;

/// The types of files in directory entries.
pub mod kind {
    /// A regular file.
    pub const FILE: u8 = 1;
    /// A folder.
    pub const FOLDER: u8 = 2;
    /// A named pipe.
    pub const PIPE: u8 = 5;
    /// A symbolic link.
    pub const LINK: u8 = 7;
}

/// What an inode has beside [`Attributes`].
pub struct Inode {
    /// Its number in `stat`.
    pub number: u32,
    /// The bits of its type in the mode.
    pub type_bits: u16,
    /// Bytes of content.
    pub size: u64,
    /// How many names it has.
    pub links: u32,
    /// The first block of its content.
    pub block: u32,
    /// Does what is over whole blocks follow the inode?
    pub is_inline: bool,
}

/// An inode with its extended attributes.
pub fn inode(inode: &Inode, attributes: &Attributes) -> Vec<u8> {
    let xattrs = xattrs(&attributes.xattrs);
    // The first is counted in words behind a head of three.
    let count = u16::try_from(xattrs.len().saturating_sub(8) / 4).unwrap_or(0);
    let layout: u16 = if inode.is_inline { 2 } else { 0 };
    let mut bytes = Vec::with_capacity(xattrs.len().saturating_add(64));
    bytes.extend((layout << 1 | 1).to_le_bytes());
    bytes.extend(count.to_le_bytes());
    bytes.extend((inode.type_bits | attributes.mode).to_le_bytes());
    bytes.extend([0; 2]);
    bytes.extend(inode.size.to_le_bytes());
    bytes.extend(inode.block.to_le_bytes());
    bytes.extend(inode.number.to_le_bytes());
    bytes.extend(attributes.uid.to_le_bytes());
    bytes.extend(attributes.gid.to_le_bytes());
    bytes.extend(attributes.mtime.to_le_bytes());
    bytes.extend([0; 4]);
    bytes.extend(inode.links.to_le_bytes());
    bytes.extend([0; 16]);
    bytes.extend(xattrs);
    bytes
}

/// How many bytes extended attributes take behind an inode.
pub fn xattrs_len(all: &BTreeMap<Vec<u8>, Vec<u8>>) -> u64 {
    xattrs(all).len() as u64
}

fn xattrs(all: &BTreeMap<Vec<u8>, Vec<u8>>) -> Vec<u8> {
    if all.is_empty() {
        return Vec::new();
    }
    let mut bytes = vec![0; XATTRS_HEAD];
    for (name, value) in all {
        let prefixes = [(1, &b"user."[..]), (4, b"trusted."), (6, b"security.")];
        let Some((index, rest)) =
            prefixes.iter().find_map(|(index, prefix)| Some((*index, name.strip_prefix(*prefix)?)))
        else {
            continue;
        };
        let (Ok(name_len), Ok(value_len)) = (u8::try_from(rest.len()), u16::try_from(value.len())) else { continue };
        bytes.extend([name_len, index]);
        bytes.extend(value_len.to_le_bytes());
        bytes.extend(rest);
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    bytes
}

/// The blocks of a folder with these names, of which `each` tells inode and type: all but the last are whole.
pub fn folder<'a>(names: impl Iterator<Item = (&'a [u8], u64, u8)>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut block: Vec<(&[u8], u64, u8)> = Vec::new();
    let mut used = 0_usize;
    for entry in names {
        let more = entry.0.len().saturating_add(ENTRY);
        if used.saturating_add(more) > BLOCK_LEN {
            put_block(&mut bytes, &block);
            bytes.resize(bytes.len().next_multiple_of(BLOCK_LEN), 0);
            block.clear();
            used = 0;
        }
        used = used.saturating_add(more);
        block.push(entry);
    }
    put_block(&mut bytes, &block);
    bytes
}

fn put_block(bytes: &mut Vec<u8>, block: &[(&[u8], u64, u8)]) {
    let mut at = block.len().saturating_mul(ENTRY);
    for (name, nid, kind) in block {
        bytes.extend(nid.to_le_bytes());
        bytes.extend(u16::try_from(at).unwrap_or(0).to_le_bytes());
        bytes.extend([*kind, 0]);
        at = at.saturating_add(name.len());
    }
    block.iter().for_each(|(name, ..)| bytes.extend(*name));
}

/// The first block of an image.
pub fn first_block(root: u16, inodes: u64, blocks: u32, meta_block: u32) -> Vec<u8> {
    let mut bytes = vec![0; SUPER];
    bytes.extend(MAGIC.to_le_bytes());
    bytes.extend([0; 4]);
    bytes.extend(COMPATIBLE.to_le_bytes());
    bytes.extend([12, 0]);
    bytes.extend(root.to_le_bytes());
    bytes.extend(inodes.to_le_bytes());
    bytes.extend([0; 12]);
    bytes.extend(blocks.to_le_bytes());
    bytes.extend(meta_block.to_le_bytes());
    bytes.resize(BLOCK_LEN, 0);
    let sum = crc32c(bytes.get(SUPER..).unwrap_or_default());
    if let Some(field) = bytes.get_mut(SUPER.saturating_add(4)..SUPER.saturating_add(8)) {
        field.copy_from_slice(&sum.to_le_bytes());
    }
    bytes
}

/// The checksum of Castagnoli, which EROFS does not invert at the end.
fn crc32c(bytes: &[u8]) -> u32 {
    bytes.iter().fold(u32::MAX, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| if sum & 1 == 1 { sum >> 1 ^ 0x82f6_3b78 } else { sum >> 1 })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_that_of_castagnoli() {
        assert_eq!(!crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn a_folder_s_blocks_are_whole_and_names_never_cross_them() {
        let names: Vec<Vec<u8>> =
            (0..500).map(|number| format!("a name of some length {number:04}").into_bytes()).collect();
        let bytes = folder(names.iter().map(|name| (name.as_slice(), 7, kind::FILE)));
        let mut found = 0;
        for block in bytes.chunks(BLOCK_LEN) {
            let count = usize::from(u16::from_le_bytes([block[8], block[9]])) / ENTRY;
            let last = (count - 1) * ENTRY;
            let at = usize::from(u16::from_le_bytes([block[last + 8], block[last + 9]]));
            assert!(block[at..].starts_with(b"a name of some length "));
            found += count;
        }
        assert_eq!(found, 500);
    }

    #[test]
    fn extended_attributes_are_counted_in_words() {
        let attributes =
            Attributes { xattrs: [(b"user.a".to_vec(), b"12345".to_vec())].into(), ..Attributes::default() };
        let file = Inode { number: 1, type_bits: 0o100_000, size: 0, links: 1, block: NO_BLOCK, is_inline: false };
        let bytes = inode(&file, &attributes);
        // The head of 12 bytes, 4 of the entry, one of its name and five of its value, rounded up.
        assert_eq!((bytes.len(), bytes[2]), (64 + 24, 4));
        assert_eq!(&bytes[76..86], b"\x01\x01\x05\0a12345");
    }
}
