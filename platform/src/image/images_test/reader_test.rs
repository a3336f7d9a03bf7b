//! Reads what was written, by the format's description and not by the writer's code.

use std::collections::BTreeMap;

#[derive(Debug, PartialEq, Eq)]
pub struct Found {
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    pub mtime: u64,
    pub links: u32,
    pub number: u32,
    pub content: Vec<u8>,
    pub xattrs: Vec<u8>,
}

/// All files of an image by their paths.
pub fn all(image: &[u8]) -> BTreeMap<String, Found> {
    assert_eq!(u32_at(image, 1024), 0xe0f5_e1e2);
    assert_eq!(image.len() as u32, u32_at(image, 1024 + 0x24) * 4096);
    let root = u64::from(u16_at(image, 1024 + 14));
    let mut files = BTreeMap::new();
    walk(image, root, root, String::new(), &mut files);
    files
}

fn walk(image: &[u8], nid: u64, parent: u64, path: String, files: &mut BTreeMap<String, Found>) {
    let found = inode(image, nid);
    if found.mode & 0o170_000 != 0o040_000 {
        files.insert(path, found);
        return;
    }
    let names: Vec<(Vec<u8>, u64)> = found.content.chunks(4096).flat_map(names).collect();
    assert!(names.is_sorted_by(|one, two| one.0 < two.0), "{path} is sorted, for a search");
    for (name, below) in names {
        match name.as_slice() {
            b"." => assert_eq!(below, nid, "{path}"),
            b".." => assert_eq!(below, parent, "{path}"),
            name => walk(image, below, nid, format!("{path}/{}", String::from_utf8_lossy(name)), files),
        }
    }
    files.insert(if path.is_empty() { "/".to_owned() } else { path }, found);
}

fn names(block: &[u8]) -> Vec<(Vec<u8>, u64)> {
    let count = usize::from(u16_at(block, 8)) / 12;
    let begin = |entry: usize| if entry < count { usize::from(u16_at(block, entry * 12 + 8)) } else { block.len() };
    let name = |entry: usize| block[begin(entry)..begin(entry + 1)].split(|byte| *byte == 0).next().unwrap().to_vec();
    (0..count).map(|entry| (name(entry), u64_at(block, entry * 12))).collect()
}

fn inode(image: &[u8], nid: u64) -> Found {
    let at = u32_at(image, 1024 + 0x28) as usize * 4096 + nid as usize * 32;
    let format = u16_at(image, at);
    assert_eq!(format & 1, 1, "the extended form");
    assert!(at % 4096 <= 4096 - 64, "no inode crosses a block");
    let count = usize::from(u16_at(image, at + 2));
    let size = u64_at(image, at + 8) as usize;
    let block = u32_at(image, at + 16) as usize * 4096;
    let body = at + 64 + if count == 0 { 0 } else { 12 + 4 * (count - 1) };
    let content = match format >> 1 {
        0 if size == 0 => Vec::new(),
        0 => image[block..block + size].to_vec(),
        2 => {
            let whole = size / 4096 * 4096;
            let tail = size - whole;
            assert!(body % 4096 + tail <= 4096, "no tail crosses a block");
            let front = if whole == 0 { &[] } else { &image[block..block + whole] };
            [front, &image[body..body + tail]].concat()
        }
        other => panic!("layout {other}"),
    };
    Found {
        mode: u16_at(image, at + 4),
        uid: u32_at(image, at + 24),
        gid: u32_at(image, at + 28),
        mtime: u64_at(image, at + 32),
        links: u32_at(image, at + 44),
        number: u32_at(image, at + 20),
        content,
        xattrs: image[at + 64..body].to_vec(),
    }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().unwrap())
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}
