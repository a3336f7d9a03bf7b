//! The command line, by the zero page of Linux's boot protocol.

use core::ffi::CStr;

use super::memory;

/// Where the zero page says where the command line is (Documentation/arch/x86/zero-page.rst).
const CMDLINE_POINTER: u64 = 0x228;

pub struct Cmdline(&'static str);

impl Cmdline {
    pub fn find(zero_page: u64) -> Self {
        let address: u32 = memory::read(zero_page + CMDLINE_POINTER);
        // SAFETY: the monitor put a string with a NUL there, which nobody writes to.
        let text = unsafe { CStr::from_ptr(address as usize as *const _) };
        Self(text.to_str().unwrap_or(""))
    }

    /// The values of all `key=VALUE`.
    pub fn all<'a>(&self, key: &'a str) -> impl Iterator<Item = &'static str> + use<'a> {
        let words = self.0.split(' ');
        words.filter_map(move |word| word.strip_prefix(key)?.strip_prefix('='))
    }

    pub fn text(&self, key: &str) -> Option<&'static str> {
        self.all(key).next()
    }

    pub fn number(&self, key: &str) -> Option<u64> {
        self.text(key)?.parse().ok()
    }

    /// Where the devices are, by `virtio_mmio.device=SIZE@ADDRESS:INTERRUPT`.
    pub fn devices(&self) -> impl Iterator<Item = u64> + use<> {
        self.all("virtio_mmio.device").filter_map(|text| {
            let (_, place) = text.split_once('@')?;
            let (address, _) = place.split_once(':')?;
            u64::from_str_radix(address.trim_start_matches("0x"), 16).ok()
        })
    }
}
