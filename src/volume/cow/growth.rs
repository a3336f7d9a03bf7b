//! A layer that grows while it is used: whoever has it grow writes what is new to its file, and then tells it.

use std::sync::{Arc, Mutex};

use super::blocks::Blocks;
use super::header::Header;
use super::load::{write_both, write_pages};
use super::place::Place;
use crate::error::Result;
use crate::sys::{lock, lock_if_free};

/// By which a layer in use is told that its file has grown. A clone is of the same layer.
#[derive(Clone, Default)]
pub(crate) struct Growth(Arc<Mutex<Option<Grown>>>);

/// How large it is, and where its parts lie.
pub(super) struct Grown {
    pub(super) capacity: u64,
    pub(super) place: Place,
}

impl Growth {
    /// Tells the layer, which takes it when its disk is [refreshed](crate::block::DiskBackend::refresh). The header is in the file, and stable.
    pub(crate) fn tell(&self, header: &Header) {
        *lock(&self.0) = Some(Grown { capacity: header.capacity, place: header.place.clone() });
    }

    /// Never blocks: whoever tells something has the disk refreshed afterwards.
    pub(super) fn take(&self) -> Option<Grown> {
        lock_if_free(&self.0).and_then(|mut told| told.take())
    }
}

/// Makes a layer's file one of `capacity` bytes, while the layer is used or not: its map goes on behind all that the file has room for, and
/// then its header says so. What the layer writes meanwhile stays right, since nothing that was there has another place. `header` is that of the file,
/// and becomes the new one. All of it is stable when this returns.
///
/// # Errors
/// If it cannot be written: then the file is as it was, or as it is to be.
pub(crate) fn lengthen(blocks: &mut impl Blocks, header: &mut Header, longer: Header) -> Result<()> {
    // What was written in vain would fill a disk for want of whose space that may have been.
    write_pages(blocks, &longer, header.pages(), |_| &[]).inspect_err(|_| blocks.cut(header.file_len()))?;
    *header = longer;
    // Also if nothing is added: who did that the last time may not know that it is stable.
    write_both(blocks, header)
}
