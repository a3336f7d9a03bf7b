//! RAM of a template.

use super::address::GuestAddress;
use super::guest::GuestMemory;
use super::mapping::Source;
use super::template::Template;
use crate::config::{MemoryConfig, PageSize};
#[cfg(doc)]
use crate::error::ErrorKind;
use crate::error::Result;

impl GuestMemory {
    /// Maps memory whose content is that of a template, which stays as it is: a page of its own is taken when the guest changes one.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] if the regions are not those of the template; [`ErrorKind::HostMemory`] if the host refuses the
    /// mapping.
    pub(crate) fn copy_of(template: &Template, regions: &[(GuestAddress, u64)], config: &MemoryConfig) -> Result<Self> {
        template.fits(regions)?;
        let sources = template.regions.iter().map(|region| Source::CopyOf(&region.extents));
        let memory = Self::unplaced(regions, sources, PageSize::Default)?;
        memory.place(config)?;
        Ok(memory)
    }
}
