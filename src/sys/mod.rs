//! The only raw calls to the host's C library: each file wraps one thing and owns its descriptor or mapping.
//!
//! Nothing here knows of virtual machines. Every room above uses it instead of `libc`.
#![allow(unsafe_code, reason = "wraps system calls that have no safe interface")]

mod epoll;
mod eventfd;
mod file;
mod lock;
mod random;
mod signal;
mod stream;
mod tap;
mod thread;
mod timer;

pub(crate) use epoll::{Epoll, Interest, Readiness};
pub use eventfd::EventFd;
#[cfg(any(test, feature = "test-util"))]
pub(crate) use file::anonymous_file;
pub(crate) use file::{ZeroMode, is_open, is_writable, open_disk, try_lock, zero_range};
pub(crate) use lock::lock;
pub(crate) use random::random_bytes;
pub use signal::DEFAULT_KICK_SIGNAL;
pub(crate) use signal::{KickSignal, SignalSet};
pub(crate) use stream::{InputStream, OutputStream};
pub(crate) use tap::{Offloads, Tap};
pub(crate) use thread::{ThreadHandle, current_thread_id, kick_thread, spawn};
pub(crate) use timer::Timer;
