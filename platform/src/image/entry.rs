//! One file of a source, as an archive or a folder has it.

use std::collections::BTreeMap;

use crate::fault::{Fault, Result};

/// The longest path, in bytes, as Linux has it.
pub const MOST_PATH: usize = 4095;
/// The longest name of a file.
const MOST_NAME: usize = 255;

/// A path below the root, by its names.
pub type Place = Vec<Vec<u8>>;

/// One file, folder or link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where it is; the root itself has no names.
    pub place: Place,
    /// What it is.
    pub kind: Kind,
    /// Whose it is, and what may be done with it.
    pub attributes: Attributes,
    /// In an archive, where its content begins, in bytes. In a folder, when anything of it changed last, in nanoseconds since 1970.
    pub mark: u64,
}

/// What a file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A folder.
    Folder,
    /// A regular file of so many bytes.
    File(u64),
    /// A symbolic link, whose target is data for the guest and is never followed on the host.
    Link(Vec<u8>),
    /// Another name of a file.
    Same(Place),
    /// A named pipe.
    Pipe,
    /// A device node.
    Device,
    /// A socket, which is of no use to another machine.
    Socket,
}

/// Owner, mode, time and extended attributes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// The twelve bits of permissions.
    pub mode: u16,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// When it was changed, in seconds since 1970.
    pub mtime: u64,
    /// Extended attributes by their whole names.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// Splits a path of an archive.
///
/// # Errors
/// If it is empty, absolute, leads upwards, or is too long.
pub fn place(path: &[u8]) -> Result<Place> {
    let refused = |why: &str| Err(Fault::new(format!("the entry `{}`: {why}", shown(path))));
    if path.is_empty() {
        return refused("a path is empty");
    }
    // A slash alone is the root, as umoci writes it.
    if path.first() == Some(&b'/') && path.iter().any(|byte| *byte != b'/') {
        return refused("a path is absolute; allowed are paths below the root of the archive");
    }
    if path.len() > MOST_PATH {
        return refused(&format!("a path has {} bytes; allowed are {MOST_PATH}", path.len()));
    }
    if path.contains(&0) {
        return refused("a path has a byte 0");
    }
    let names: Vec<&[u8]> = path.split(|byte| *byte == b'/').filter(|name| !matches!(*name, b"" | b".")).collect();
    if names.contains(&&b".."[..]) {
        return refused("a path leads upwards by `..`");
    }
    if let Some(name) = names.iter().find(|name| name.len() > MOST_NAME) {
        return refused(&format!("a name has {} bytes; allowed are {MOST_NAME}", name.len()));
    }
    Ok(names.into_iter().map(<[u8]>::to_vec).collect())
}

/// A path for a message: what is not printable is escaped, and the middle of a long one left out.
#[must_use]
pub fn shown(path: &[u8]) -> String {
    let text: String = path.escape_ascii().map(char::from).collect();
    if text.len() <= 200 { text } else { format!("{}...", text.chars().take(200).collect::<String>()) }
}

/// The same for a path by its names.
#[must_use]
pub fn shown_place(place: &[Vec<u8>]) -> String {
    if place.is_empty() { ".".to_owned() } else { shown(&place.join(&b'/')) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_split_into_its_names() {
        assert_eq!(place(b"./usr//bin/./sh").unwrap(), [&b"usr"[..], b"bin", b"sh"]);
        for root in [&b"./"[..], b".", b"/"] {
            assert_eq!(place(root).unwrap(), Place::new());
        }
    }

    #[test]
    fn paths_that_lead_outside_or_are_too_long_are_refused_by_name() {
        let refused = |path: &[u8]| place(path).unwrap_err().message;
        assert_eq!(
            refused(b"/etc/passwd"),
            "the entry `/etc/passwd`: a path is absolute; allowed are paths below the root of the archive"
        );
        assert_eq!(refused(b"a/../../b"), "the entry `a/../../b`: a path leads upwards by `..`");
        assert_eq!(refused(b""), "the entry ``: a path is empty");
        assert_eq!(refused(b"a\0b"), "the entry `a\\x00b`: a path has a byte 0");
        assert!(refused(&[b'x'; 256]).ends_with("a name has 256 bytes; allowed are 255"));
        assert!(refused(&b"ab/".repeat(1400)).contains("a path has 4200 bytes; allowed are 4095"));
    }
}
