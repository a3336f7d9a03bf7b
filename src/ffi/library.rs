//! The library itself: its version, its features, and the number of its objects.

use std::ffi::{CStr, c_char};

use super::convert::read_text;
use super::guard::guard_value;
use super::objects;
use crate::block::{abandoned_threads, abandoned_transfers};
use crate::console::abandoned_console_threads;

const VERSION: &CStr = match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
    Ok(version) => version,
    Err(_) => c"",
};

/// The features that a program can ask for, and whether this build has them.
const FEATURES: [(&str, bool); 13] = [
    ("acpi", true),
    ("console", true),
    ("disk", true),
    ("engine-sync", true),
    ("json", true),
    ("metadata", true),
    ("network", true),
    ("nic", true),
    ("save", true),
    ("secret", true),
    ("test-util", cfg!(feature = "test-util")),
    ("volume", true),
    ("wireguard", true),
];

/// Returns the version of the running library, such as "1.2.3"; VMCELL_VERSION is that of this header. Before 1.0.0 a
/// program needs the same major and minor version; from then on, the same major version and at least the same minor
/// version. Static, never freed. Never blocks.
#[unsafe(no_mangle)]
pub extern "C" fn vmcell_version() -> *const c_char {
    VERSION.as_ptr()
}

/// Returns 1 if this build of the library has a feature; 0 if it does not, if it does not know the name, or if the name
/// is NULL. Every function is in every build; a missing feature fails at run time. Names: "acpi", "console", "disk",
/// "engine-sync", "json" (descriptions of VMs), "metadata" (its service), "network" (private networks), "nic", "save" (files of snapshots), "secret",
/// "test-util" (only tests have it), "volume" (encrypted volumes), "wireguard" (tunnels of private networks). Never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_has_feature(name: *const c_char) -> i32 {
    guard_value(0, || {
        // SAFETY: the header demands NULL or a text that ends with a NUL.
        let name = unsafe { read_text(name, "name") }.unwrap_or_default();
        i32::from(FEATURES.contains(&(name.as_str(), true)))
    })
}

/// Returns how many objects of this library the process holds, neither freed nor handed over: for a test at its end.
#[unsafe(no_mangle)]
pub extern "C" fn vmcell_handle_count() -> u64 {
    guard_value(0, objects::count)
}

/// Returns how many threads of this process wait for a console's terminal, device or file that does not answer, although their VM was
/// freed. Each ends when the host answers, or with the process. Never blocks.
#[unsafe(no_mangle)]
pub extern "C" fn vmcell_console_threads_abandoned() -> u64 {
    guard_value(0, || abandoned_console_threads() as u64)
}

/// Returns how many threads of this process wait for a disk's storage that does not answer, although their VM was freed. Each ends
/// when the host answers, or with the process. Never blocks.
#[unsafe(no_mangle)]
pub extern "C" fn vmcell_disk_threads_abandoned() -> u64 {
    guard_value(0, || abandoned_threads() as u64)
}

/// Returns how many transfers of io_uring wait for a disk's storage that does not answer, although their VM was freed. Each holds the
/// guest memory that it transfers to or from. Never blocks.
#[unsafe(no_mangle)]
pub extern "C" fn vmcell_disk_transfers_abandoned() -> u64 {
    guard_value(0, || abandoned_transfers() as u64)
}
