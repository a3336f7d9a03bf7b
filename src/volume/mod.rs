//! Encrypted volumes, with the feature of that name: LUKS2, which `cryptsetup` reads and writes as well, as a layer on a disk's backend.
//!
//! [`Volume`] is a volume that is open, and becomes the disk of a VM; [`VolumeKeys`] are the keys that open it; [`Key`] is one of them.
//! `docs/volumes.md` says what is on the disk, and what an attacker sees.
//!
//! All calls here block while they read and write files, and while a key slot is computed. None belongs on an
//! [I/O thread](crate::event#what-a-callback-may-do). The disk that a volume becomes never blocks.

mod absorb;
mod below;
mod chain;
mod cipher;
mod cow;
mod draft;
mod encrypted;
mod grow;
mod info;
mod key;
mod keys;
mod length;
mod live;
mod luks;
mod merge;
mod offline;
mod payload;
mod reopen;
mod snapshot;
#[allow(clippy::module_inception, reason = "the room is called after its main type")]
mod volume;

#[cfg(feature = "save")]
pub(crate) use cipher::Cipher;
pub use draft::VolumeFormat;
pub use encrypted::Encrypted;
pub use info::{KeySlot, VolumeInfo};
pub use key::Key;
pub use keys::VolumeKeys;
pub use luks::UnlockLimits;
pub use merge::{OtherForks, VolumeProgress};
pub use snapshot::{VolumeHandle, VolumeSnapshot};
pub use volume::{Volume, VolumeOptions};

use crate::error::{Error, ErrorKind};

fn refused(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Volume, message)
}

fn no_secret_memory(e: std::io::Error) -> Error {
    refused("no memory can be locked for a key (RLIMIT_MEMLOCK, ulimit -l)").with_source(e)
}

fn no_random(e: std::io::Error) -> Error {
    refused("the host gives no random bytes").with_source(e)
}
