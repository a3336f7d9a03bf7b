//! What a guest is given, by whichever monitor.

use std::path::Path;

/// The guest's memory under every monitor.
pub const MEMORY_MIB: u64 = 128;

pub struct Machine<'a> {
    pub guest: &'a Path,
    /// The guest is Linux, with this initrd.
    pub initrd: Option<&'a Path>,
    pub cmdline: String,
    pub disk: Option<Disk<'a>>,
    pub tap: Option<&'a str>,
    /// The guest's memory is in transparent huge pages.
    pub huge_pages: bool,
    /// For files that a monitor is started with.
    pub scratch: &'a Path,
}

pub struct Disk<'a> {
    pub path: &'a Path,
    pub direct: bool,
}
