//! Folders that are made of choices on the host's disk. What the image has is held against what the host says of the folder.

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::made;
use crate::input::{Input, Script};

const NAMES: [&str; 8] = ["a", "b", "c", "dev", "é", "...", "-x y", "a\u{1}"];
const SIZES: [u64; 8] = [0, 1, 63, 4031, 4032, 4096, 9000, 1 << 20];
/// Of folders and files, of which the owner can read each.
const MODES: [u32; 4] = [0o755, 0o4744, 0o1777, 0o600];
const MOST_STEPS: usize = 200;

/// What one file is: mode, time, the number of its names, and its content.
type Seen = (u32, i64, u64, Vec<u8>);

/// Makes a folder of choices, and an image of it.
pub fn run(input: &mut Input<'_>) {
    let folder = tempfile::tempdir().expect("a folder");
    let source = folder.path().join("source");
    fs::create_dir(&source).expect("a folder");
    for _ in 0..MOST_STEPS {
        if input.is_over() {
            break;
        }
        step(&source, input);
    }
    let (mut there, mut sockets, mut bytes) = (BTreeMap::new(), 0, 0);
    walk(&source, "/".to_owned(), &mut there, &mut sockets, &mut bytes);
    let (image, files) = made(folder.path(), bytes).expect("a folder is taken");
    assert_eq!(image.left_out, sockets);
    assert_eq!(files.keys().collect::<Vec<_>>(), there.keys().collect::<Vec<_>>());
    for (path, (mode, mtime, links, content)) in &there {
        let found = &files[path];
        assert_eq!((u32::from(found.mode), found.uid, found.gid), (*mode, 0, 0), "{path}");
        assert_eq!(found.mtime, u64::try_from(*mtime).unwrap_or(0), "{path}");
        if mode & 0o170_000 != 0o040_000 {
            assert_eq!((u64::from(found.links), &found.content), (*links, content), "{path}");
        }
    }
}

/// Makes one file. What cannot be is left: a name that is taken, or below what is no folder.
fn step(source: &Path, input: &mut Input<'_>) {
    let (what, at) = (input.byte(), path(source, input));
    let _ = match what % 8 {
        0 | 1 => fs::create_dir_all(&at).and_then(|()| mode(&at, input.byte())),
        2 | 3 => file(&at, input),
        // An absolute one leads to where nothing of the host's is: what is made later may lie behind it.
        4 => symlink(path(Path::new(if what & 8 == 0 { "" } else { "/no-such-folder" }), input), &at),
        5 => fs::hard_link(path(source, input), &at),
        6 => mknodat(CWD, &at, FileType::Fifo, Mode::from_raw_mode(0o600), 0).map_err(Into::into),
        // Its path would be too long for a socket in a deep folder.
        _ => UnixListener::bind(&at).map(drop),
    };
}

fn path(below: &Path, input: &mut Input<'_>) -> PathBuf {
    let names = (0..=input.below(3)).map(|_| NAMES[usize::from(input.byte()) % 8]);
    names.fold(below.to_owned(), |path, name| path.join(name))
}

fn mode(at: &Path, which: u8) -> std::io::Result<()> {
    // What belongs to others in the host's folder stays as it is.
    fs::set_permissions(at, Permissions::from_mode(MODES[usize::from(which) % 4] | 0o700))
}

fn file(at: &Path, input: &mut Input<'_>) -> std::io::Result<()> {
    let size = SIZES[usize::from(input.byte()) % 8];
    if fs::symlink_metadata(at).is_ok() {
        return Ok(());
    }
    let file = File::create(at)?;
    if input.one_in(2) {
        file.set_len(size)?;
    } else {
        fs::write(at, vec![b'x'; size as usize])?;
    }
    file.set_permissions(Permissions::from_mode(MODES[usize::from(input.byte()) % 4]))
}

/// What the host says of all that is there.
fn walk(at: &Path, path: String, there: &mut BTreeMap<String, Seen>, sockets: &mut u64, bytes: &mut usize) {
    let metadata = fs::symlink_metadata(at).expect("it is there");
    let kind = metadata.mode() & 0o170_000;
    let content = match kind {
        0o140_000 => return *sockets += 1,
        0o040_000 => {
            for entry in fs::read_dir(at).expect("a folder").flatten() {
                let name = entry.file_name().into_string().expect("the names are text");
                let below = if path == "/" { format!("/{name}") } else { format!("{path}/{name}") };
                walk(&entry.path(), below, there, sockets, bytes);
            }
            Vec::new()
        }
        0o100_000 => fs::read(at).expect("a file"),
        0o120_000 => fs::read_link(at).expect("a link").into_os_string().into_encoded_bytes(),
        _ => Vec::new(),
    };
    *bytes += content.len();
    there.insert(path, (metadata.mode(), metadata.mtime(), metadata.nlink(), content));
}

/// Inputs that reach far.
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let folder = || Script::new().bytes(&[3, 0, 0, 0, 1]);
    vec![
        ("folder", folder().bytes(&[2, 1, 0, 1, 6, 0, 2]).bytes(&[5, 0, 2, 1, 0, 1]).bytes(&[4, 0, 3, 1, 5, 6]).done()),
        ("folder-sparse", folder().bytes(&[3, 0, 4, 7, 1, 0]).bytes(&[2, 0, 5, 3, 0, 1]).done()),
        ("folder-others", folder().bytes(&[6, 0, 4]).bytes(&[7, 0, 5]).bytes(&[12, 1, 0, 3, 0, 7]).done()),
    ]
}
