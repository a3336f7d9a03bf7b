//! Which version this is, and what is in it.

use std::ffi::{CStr, c_char};

use super::convert::read_text;
use super::guard::guard_value;
use super::objects;

const VERSION: &CStr = match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
    Ok(version) => version,
    Err(_) => c"",
};

/// What can be asked for, and whether this build has it.
const FEATURES: [(&str, bool); 6] = [
    ("acpi", true),
    ("console", true),
    ("disk", true),
    ("engine-sync", true),
    ("nic", true),
    ("test-util", cfg!(feature = "test-util")),
];

/// The version of the library that runs, such as "1.2.3"; VMCELL_VERSION is that of this header. Before 1.0.0 a program
/// needs the same major and minor version, from then on the same major one and a minor one not below. Static, never freed.
/// Never blocks.
#[unsafe(no_mangle)]
pub extern "C" fn vmcell_version() -> *const c_char {
    VERSION.as_ptr()
}

/// Whether this build of the library has a feature: 1 yes, 0 no, also for names that it does not know and for NULL. Every
/// function is in every build; what is not there fails at run time. Names: "acpi", "console", "disk", "engine-sync", "nic",
/// "test-util" (only tests have it). Never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_has_feature(name: *const c_char) -> i32 {
    guard_value(0, || {
        // SAFETY: the header demands NULL or a text that ends with a NUL.
        let name = unsafe { read_text(name, "name") }.unwrap_or_default();
        i32::from(FEATURES.contains(&(name.as_str(), true)))
    })
}

/// How many objects of this library the process holds that were neither freed nor handed over: for a test at its end.
#[unsafe(no_mangle)]
pub extern "C" fn vmcell_handle_count() -> u64 {
    guard_value(0, objects::count)
}
