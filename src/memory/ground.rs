//! What lies under a region of RAM, which changes when a template is made of it.

use std::fs::File;
use std::sync::Arc;

use super::mapping::Source;
use super::template::Extent;
use crate::config::MemoryBacking;

/// What lies under the mapping of a region.
#[derive(Clone, Debug)]
pub(super) enum Ground {
    /// Nothing: each page is the mapping's own.
    Anonymous,
    /// A file in memory, of which each page is the guest's.
    Shared(Arc<File>),
    /// Places that nobody changes: each page that the guest has changed is the mapping's own.
    Private(Vec<Extent>),
}

impl Ground {
    pub(super) fn of(source: Source<'_>, file: Option<Arc<File>>) -> Self {
        match (source, file) {
            (Source::CopyOf(extents), _) => Self::Private(extents.to_vec()),
            (Source::New(MemoryBacking::Memfd), Some(file)) => Self::Shared(file),
            (Source::New(_), _) => Self::Anonymous,
        }
    }
}
