//! Any source of an image, as bytes, as an archive or layout that is made of choices, or as a folder: it becomes an image that is whole and has what
//! the source has, or is refused.

mod archive;
mod folder;
mod layout;
#[allow(clippy::duplicate_mod, reason = "the platform's own tests are compiled here as well, with its images")]
#[path = "../../platform/src/image/images_test/reader_test.rs"]
mod reader;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::alloc::Meter;
use crate::clock::within;
use crate::image::{Image, Limits, build};
use crate::input::Input;
use reader::Found;

const PATIENCE: Duration = Duration::from_secs(5);
/// What building may hold, beside so many times as much as the source has.
const MOST_HELD: i64 = 12 << 20;
const TIMES: i64 = 24;
/// What choices cannot reach, and bytes that unpack to more can.
const LIMITS: Limits =
    Limits { files: 20_000, bytes: 16 << 20, archive_bytes: 24 << 20, text_bytes: 1 << 20, layers: 8 };

/// The files of an image by their paths.
type Files = BTreeMap<String, Found>;

/// Runs one input.
pub fn run(bytes: &[u8]) {
    let Some((kind, rest)) = bytes.split_first() else { return };
    match kind % 4 {
        0 => drop(of_bytes(rest)),
        1 => archive::run(&mut Input::new(rest)),
        2 => layout::run(&mut Input::new(rest)),
        _ => folder::run(&mut Input::new(rest)),
    }
}

/// Makes an image of a file that has these bytes.
fn of_bytes(bytes: &[u8]) -> Option<(Image, Files)> {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("source"), bytes).expect("a file");
    made(folder.path(), bytes.len())
}

/// Makes an image of the `source` in a folder, which has so many bytes; none if it is refused.
fn made(folder: &Path, len: usize) -> Option<(Image, Files)> {
    let (source, into) = (folder.join("source"), folder.join("root.img"));
    let mut meter = Meter::new(MOST_HELD + TIMES * len as i64);
    let image = match within(PATIENCE, || meter.run(|| build(&source, &into, &LIMITS))) {
        Ok(image) => image,
        Err(fault) => {
            assert!(fault.message.contains("/source: "), "it names no source: {}", fault.message);
            assert!(!fault.message.contains(char::is_control), "a message of several lines: {:?}", fault.message);
            assert_eq!(names_in(folder), ["source"], "what is refused leaves nothing behind");
            return None;
        }
    };
    assert_eq!(names_in(folder), ["root.img", "source"]);
    let bytes = fs::read(&into).expect("an image");
    let digest: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!((image.size, &image.digest), (bytes.len() as u64, &format!("sha256:{digest}")));
    let again = build(&source, &into, &LIMITS).expect("what was taken once");
    assert_eq!(again, image, "the same source gives the same image");
    let files = reader::all(&bytes);
    assert!(files.keys().all(|path| !path.split('/').any(|name| name == "..")), "{:?}", files.keys());
    Some((image, files))
}

fn names_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder").flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Packs bytes in one of the ways that are taken.
fn packed(bytes: Vec<u8>, how: u16) -> Vec<u8> {
    match how {
        0 => {
            let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            std::io::Write::write_all(&mut packer, &bytes).expect("memory");
            packer.finish().expect("memory")
        }
        1 => ruzstd::encoding::compress_to_vec(bytes.as_slice(), ruzstd::encoding::CompressionLevel::Fastest),
        _ => bytes,
    }
}

/// Changes some bytes; a header's checksum is mended now and then.
fn damaged(mut bytes: Vec<u8>, input: &mut Input<'_>) -> Vec<u8> {
    if bytes.is_empty() {
        return bytes;
    }
    for _ in 0..input.below(6) {
        let at = usize::from(input.half()) % bytes.len();
        bytes[at] = input.byte();
        let header = at / 512 * 512;
        if input.one_in(2) && header + 512 <= bytes.len() {
            archive::sum(&mut bytes[header..header + 512]);
        }
    }
    if input.one_in(8) {
        bytes.truncate(usize::from(input.half()) % bytes.len());
    }
    bytes
}

/// Inputs that reach far.
#[must_use]
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let bytes = |bytes: Vec<u8>| [vec![0], bytes].concat();
    let mut seeds = archive::seeds();
    seeds.extend(layout::seeds());
    seeds.extend(folder::seeds());
    seeds.push(("raw-empty", bytes(packed(vec![0; 1024], 2))));
    seeds.push(("raw-gzip", bytes(packed(archive::small(), 0))));
    seeds.push(("raw-zstd", bytes(packed(archive::small(), 1))));
    seeds.push(("raw-tar", bytes(archive::small())));
    // A frame that asks for a window of as much as can be said.
    seeds.push(("raw-window", bytes(vec![0x28, 0xb5, 0x2f, 0xfd, 0, 0xff, 0x0b, 0, 0, b'x', 1, 0, 0])));
    seeds
}
