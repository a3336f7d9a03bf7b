//! LUKS2 (the on-disk format 2 of cryptsetup): the header of a volume, whose key slots each hold the key of the data for one passphrase,
//! key file or machine.
//!
//! A header comes from whoever wrote to the file. Its checksum has no key, so it says nothing: each size, count and cost in it is checked
//! before anything is allocated or computed by it.

mod binary;
mod digest;
mod hash;
mod header;
mod json;
mod kdf;
mod keyslot;
mod metadata;
mod segment;
mod split;
mod storage;

pub(super) use header::Header;
pub use kdf::UnlockLimits;
pub(super) use kdf::{Cost, Kdf};
pub(super) use keyslot::CIPHER;
pub(super) use segment::Data;
pub(super) use storage::{NewFile, Storage};
