//! What stands for the kernel in models, and how models are tried.

mod epoll;
mod eventfd;
mod kernel;

pub(crate) use epoll::{Epoll, Ready, Watch};
pub use eventfd::EventFd;
pub(crate) use kernel::{check, kick, run_guest, take_kick, this_thread};
