//! What the threads of a VM may ask of the kernel, once a guest that breaks out of KVM or of a device would be the one that asks.
//!
//! `calls` is the list, with a reason for each; `filter` hands it to the kernel. `docs/confinement.md` is made from the list.

mod calls;
mod filter;
#[cfg(test)]
#[path = "filter_test.rs"]
mod filter_test;
#[cfg(test)]
#[path = "page_test.rs"]
mod page;

pub(crate) use calls::Kind;
pub(crate) use filter::ThreadFilter;
