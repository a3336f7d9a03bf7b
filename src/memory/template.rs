//! RAM as it was at one moment, with which any number of VMs begin.

use std::fs::File;
use std::sync::Arc;

use super::address::GuestAddress;
use crate::error::{Error, ErrorKind, Result};

/// The content of a guest's RAM, in a file in memory that nobody can change. A clone is a handle to the same content.
#[derive(Clone, Debug)]
pub(crate) struct Template {
    pub(super) file: Arc<File>,
    /// Each region, one behind the other in the file.
    pub(super) regions: Vec<(GuestAddress, u64)>,
}

impl Template {
    /// Where the regions lie in the file, in bytes.
    pub(super) fn offsets(&self) -> impl Iterator<Item = u64> + '_ {
        self.regions.iter().scan(0u64, |end, (_, len)| {
            let start = *end;
            *end = end.saturating_add(*len);
            Some(start)
        })
    }

    /// Whether a guest has this RAM.
    pub(super) fn fits(&self, regions: &[(GuestAddress, u64)]) -> Result<()> {
        if self.regions == regions {
            return Ok(());
        }
        let mib =
            |regions: &[(GuestAddress, u64)]| regions.iter().fold(0u64, |sum, (_, len)| sum.saturating_add(*len)) >> 20;
        let (has, wants) = (mib(&self.regions), mib(regions));
        let message =
            format!("a guest of {wants} MiB was asked for, allowed are the {has} MiB of the one that was saved");
        Err(Error::new(ErrorKind::InvalidConfig, message))
    }
}
