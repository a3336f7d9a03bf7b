//! A layer that grows while it is used: whoever has it grow writes what is new to its file, and then tells it.

use std::sync::{Arc, Mutex};

use super::header::Header;
use super::place::Place;
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
