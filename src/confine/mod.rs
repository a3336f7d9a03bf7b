//! What the process and the threads of its VMs may ask of the kernel, once a guest that breaks out of KVM or of a device would be the
//! one that asks.
//!
//! For threads, `calls` is the list, with a reason for each, and `filter` hands it to the kernel. `docs/confinement.md` is made from the
//! list. For the process there is `jail`, with what `layer` names.

mod calls;
mod cgroup;
mod filter;
#[cfg(test)]
#[path = "filter_test.rs"]
mod filter_test;
mod jail;
mod layer;
#[cfg(test)]
#[path = "page_test.rs"]
mod page;

pub(crate) use calls::Kind;
pub use cgroup::{JailCgroup, JailIo};
pub(crate) use filter::ThreadFilter;
pub use filter::confine_this_thread;
pub use jail::{Jail, JailLimit};
pub use layer::{JailLayer, JailReport};
