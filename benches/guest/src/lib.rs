//! The guest that `cargo xtask bench` runs under each monitor.
//!
//! It is one ELF image with two entries: PVH, and the 64-bit one of Linux. Its command line says what it does; see
//! `guest/main.rs`.

/// The image, ready to be written to a file and booted; `None` if there is no guest for this CPU yet.
pub const fn image() -> Option<&'static [u8]> {
    #[cfg(guest_is_built)]
    return Some(include_bytes!(concat!(env!("OUT_DIR"), "/guest.elf")));
    #[cfg(not(guest_is_built))]
    None
}

// Only looked at: so that the format and the lints of the workspace hold for the guest's sources as well.
#[cfg(clippy)]
#[allow(dead_code, reason = "the entry point that uses it is not part of a library")]
#[path = "../guest/body/mod.rs"]
mod body;
