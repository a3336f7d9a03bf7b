//! Snapshots in files: a header, tagged sections with checksums, and the RAM in blocks, each with a checksum of its own. `docs/snapshot.md`
//! specifies the layout.
//!
//! A file is taken to be damaged or made up: each number is checked before it is used, and nothing is allocated that the file has no bytes for.

mod blocks;
mod chain;
mod header;
mod pace;
mod part;
mod read;
#[cfg(feature = "volume")]
mod sealed;
mod working_set;
mod write;

pub(crate) use chain::{Chain, Taken};
pub(crate) use pace::Pace;
#[cfg(feature = "volume")]
pub(crate) use sealed::put_away;
pub(crate) use working_set::{read_working_set, write_working_set};
pub(crate) use write::{Base, Draft, LeftOut};

use crate::error::{Error, ErrorKind};

/// What tells a saved snapshot from every other one.
pub(crate) type Identity = [u8; 16];

/// How many bytes of RAM have one checksum, and are left out if they are zeroes.
const BLOCK: u64 = 64 << 10;

/// What hides RAM from those who read the file that it is in. It gets whole pages, and where in the file they lie.
pub(crate) trait Seal: std::fmt::Debug + Send + Sync {
    fn hide(&self, at: u64, pages: &mut [u8]);
    /// The reverse.
    #[cfg_attr(not(feature = "volume"), allow(dead_code, reason = "nothing is hidden then"))]
    fn show(&self, at: u64, pages: &mut [u8]);
}

fn refused(message: impl std::convert::Into<String>) -> Error {
    Error::new(ErrorKind::Snapshot, message)
}

fn damaged(what: impl std::fmt::Display) -> Error {
    refused(format!("it is damaged: {what}"))
}

#[cfg(test)]
#[path = "save_test.rs"]
mod tests;
