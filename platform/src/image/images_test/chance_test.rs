//! Sources that chance has made: they become an image that is whole, or are refused.

use ::tar::EntryType;

use super::made_test::{Archive, archived, gzip, layout, zstd};
use super::{of_bytes, reader_test};
use crate::image::Limits;

/// Marsaglia's xorshift.
struct Chance(u64);

impl Chance {
    fn below(&mut self, most: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 8) as usize % most
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }
}

fn path(chance: &mut Chance) -> String {
    const PARTS: [&str; 8] = ["a", "b", "c", "dev", "etc", ".wh.a", "é", "long-long-long-name"];
    const ODD: [&str; 6] = ["..", ".", "", ".wh..wh..opq", "x y", "a\u{1}"];
    let part = |chance: &mut Chance| if chance.below(30) == 0 { chance.one(&ODD) } else { chance.one(&PARTS) };
    let parts: Vec<_> = (0..=chance.below(4)).map(|_| part(chance)).collect();
    parts.join("/")
}

fn archive(chance: &mut Chance) -> Vec<u8> {
    const KINDS: [EntryType; 3] = [EntryType::Regular, EntryType::Directory, EntryType::Symlink];
    const ODD: [EntryType; 5] =
        [EntryType::Link, EntryType::Block, EntryType::Fifo, EntryType::GNUSparse, EntryType::Continuous];
    const PAX: [(&str, &[u8]); 8] = [
        ("path", b"a/b"),
        ("path", b"../../b"),
        ("size", b"18446744073709551615"),
        ("size", b"-1"),
        ("uid", b"4294967296"),
        ("mtime", b"99999999999999.5"),
        ("SCHILY.xattr.user.a", b"\xff\0b"),
        ("linkpath", b"/etc"),
    ];
    let mut archive = Archive::new();
    for _ in 0..chance.below(8) {
        if chance.below(20) == 0 {
            archive = archive.pax(&[chance.one(&PAX)]);
        }
        let kind = if chance.below(20) == 0 { chance.one(&ODD) } else { chance.one(&KINDS) };
        let link = path(chance);
        let content = if kind == EntryType::Regular { vec![7; chance.below(9000)] } else { Vec::new() };
        let mode = chance.one(&[0o644, 0o755, 0o4755, 0o7777, 0]);
        archive = archive.entry(&path(chance), kind, mode, &link, &content);
    }
    archive.bytes()
}

/// Changes some bytes, and leaves the checksums of headers right now and then.
fn damaged(mut bytes: Vec<u8>, chance: &mut Chance) -> Vec<u8> {
    for _ in 0..chance.below(5) {
        let at = chance.below(bytes.len());
        bytes[at] = chance.one(&[0, b'0', b'7', 0x80, 0xff, b'/', b'.']);
        let header = at / 512 * 512;
        if chance.below(2) == 0 && header + 512 <= bytes.len() {
            let header = &mut bytes[header..header + 512];
            header[148..156].fill(b' ');
            let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
            header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
    }
    if chance.below(8) == 0 {
        bytes.truncate(chance.below(bytes.len()));
    }
    bytes
}

fn source(chance: &mut Chance) -> Vec<u8> {
    let bytes = match chance.below(4) {
        0 => {
            let layers = [archive(chance), archive(chance)];
            let [lower, upper] = layers.map(|layer| (gzip(&layer), layer));
            archived(&layout(&[lower, upper]))
        }
        _ => archive(chance),
    };
    let bytes = if chance.below(2) == 0 { bytes } else { damaged(bytes, chance) };
    match chance.below(6) {
        0 => gzip(&bytes),
        1 => zstd(&bytes),
        2 => damaged(gzip(&bytes), chance),
        _ => bytes,
    }
}

#[test]
fn a_source_that_chance_has_made_becomes_an_image_that_is_whole_or_is_refused_by_its_name() {
    let mut made = [0, 0];
    let cases = if std::env::var_os("VMCELL_LONG").is_some() { 50_000 } else { 500 };
    for seed in 1..=cases {
        let source = source(&mut Chance(u64::wrapping_mul(seed, 0x9e37_79b9_7f4a_7c15)));
        match of_bytes(&source, &Limits::default()) {
            Ok(image) => {
                let files = reader_test::all(&image);
                assert!(
                    files.keys().all(|path| !path.split('/').any(|part| part == "..")),
                    "case {seed}: {:?}",
                    files.keys()
                );
                made[0] += 1;
            }
            Err(why) => {
                assert!(
                    why.message.contains("/source: ") && !why.message.contains('\u{1}'),
                    "case {seed}: {}",
                    why.message
                );
                made[1] += 1;
            }
        }
    }
    assert!(made.iter().all(|made| *made > cases / 10), "{made:?}");
}
