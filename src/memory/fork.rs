//! How a template is made of a guest's RAM, and RAM of a template.

use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::address::GuestAddress;
use super::guest::GuestMemory;
use super::mapping::{self, Source, cannot_provide};
use super::template::Template;
use crate::config::{MemoryConfig, PageSize};
#[cfg(doc)]
use crate::error::ErrorKind;
use crate::error::Result;

/// So much is looked at at once: if it is all zeroes, it is not stored.
const STEP: usize = 64 << 10;

impl Template {
    /// Copies the RAM of a guest that stands still. Blocks for as long as the copy takes: what is all zeroes is read, but not stored.
    ///
    /// # Errors
    /// [`ErrorKind::HostMemory`] if the host has no room for the copy.
    pub(crate) fn copy(memory: &GuestMemory) -> Result<Self> {
        let refused = |cause| cannot_provide(memory.size()).with_source(cause);
        let regions: Vec<_> = memory.regions().map(|region| (region.start, region.len)).collect();
        let len = usize::try_from(memory.size()).unwrap_or(usize::MAX);
        let file = mapping::memfd(len).map_err(refused)?;
        let (mut bytes, mut at) = (vec![0; STEP], 0u64);
        for (start, len) in &regions {
            let mut done = 0u64;
            while done < *len {
                let step = len.saturating_sub(done).min(STEP as u64);
                let part = usize::try_from(step).ok().and_then(|step| bytes.get_mut(..step)).unwrap_or_default();
                memory.read(GuestAddress(start.0.saturating_add(done)), part)?;
                if part.iter().any(|byte| *byte != 0) {
                    file.write_all_at(part, at).map_err(refused)?;
                }
                done = done.saturating_add(step);
                at = at.saturating_add(step);
            }
        }
        mapping::seal(&file).map_err(refused)?;
        Ok(Self { file: Arc::new(file), regions })
    }
}

impl GuestMemory {
    /// Maps memory whose content is that of a template, which stays as it is: a page of its own is taken when the guest changes one.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] if the regions are not those of the template; [`ErrorKind::HostMemory`] if the host refuses the
    /// mapping.
    pub(crate) fn copy_of(template: &Template, regions: &[(GuestAddress, u64)], config: &MemoryConfig) -> Result<Self> {
        template.fits(regions)?;
        let sources = template.offsets().map(|offset| Source::CopyOf(&template.file, offset));
        let memory = Self::unplaced(regions, sources, PageSize::Default)?;
        memory.place(config)?;
        Ok(memory)
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;
    use crate::error::ErrorKind;

    const REGIONS: [(GuestAddress, u64); 2] = [(GuestAddress(0), 0x3_0000), (GuestAddress(0x10_0000), 0x2_1000)];

    fn byte(memory: &GuestMemory, gpa: u64) -> u8 {
        let mut bytes = [0];
        memory.read(GuestAddress(gpa), &mut bytes).unwrap();
        bytes[0]
    }

    #[test]
    fn copies_begin_with_the_content_and_none_sees_what_another_or_the_source_changes() {
        let source = GuestMemory::anonymous(&REGIONS).unwrap();
        for gpa in [0, 0x1_ffff, 0x2_ffff, 0x10_0000, 0x12_0fff] {
            source.write(GuestAddress(gpa), &[7]).unwrap();
        }
        let template = Template::copy(&source).unwrap();
        source.write(GuestAddress(0), &[1]).unwrap();
        let [one, other] =
            [(); 2].map(|()| GuestMemory::copy_of(&template, &REGIONS, &MemoryConfig::default()).unwrap());
        one.write(GuestAddress(0x12_0fff), &[2]).unwrap();
        assert_eq!([0, 0x1_ffff, 0x2_ffff, 0x10_0000, 0x12_0fff].map(|gpa| byte(&other, gpa)), [7; 5]);
        assert_eq!([1, 0x2_0000, 0x11_0000].map(|gpa| byte(&other, gpa)), [0; 3]);
        assert_eq!((byte(&source, 0), byte(&one, 0x12_0fff)), (1, 2));
    }

    #[test]
    fn nobody_can_change_the_content_and_pages_of_zeroes_take_no_room() {
        let source = GuestMemory::anonymous(&[(GuestAddress(0), 16 << 20)]).unwrap();
        source.write(GuestAddress(8 << 20), &[7]).unwrap();
        let template = Template::copy(&source).unwrap();
        let file = &template.file;
        assert!(file.write_all_at(&[1], 0).is_err() && file.set_len(0).is_err());
        let blocks = std::os::linux::fs::MetadataExt::st_blocks(&file.metadata().unwrap());
        assert!(blocks * 512 <= STEP as u64, "{blocks}");
        // SAFETY: a new mapping at a place of the kernel's choice, which must be refused.
        let shared =
            unsafe { libc::mmap(std::ptr::null_mut(), 4096, libc::PROT_WRITE, libc::MAP_SHARED, file.as_raw_fd(), 0) };
        assert_eq!(shared, libc::MAP_FAILED);
    }

    #[test]
    fn a_guest_of_another_size_is_refused() {
        let template = Template::copy(&GuestMemory::anonymous(&[(GuestAddress(0), 2 << 20)]).unwrap()).unwrap();
        let other = [(GuestAddress(0), 4 << 20)];
        let error = GuestMemory::copy_of(&template, &other, &MemoryConfig::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        assert_eq!(
            error.to_string(),
            "a guest of 4 MiB was asked for, allowed are the 2 MiB of the one that was saved"
        );
    }
}
