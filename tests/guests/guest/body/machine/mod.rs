//! The bare machine: everything that needs `unsafe` in this guest is here.

pub mod clock;
pub mod cmdline;
mod entry;
pub mod memory;
pub mod port;
pub mod power;
pub mod privileged;
pub mod second;
pub mod serial;
pub mod wide;
