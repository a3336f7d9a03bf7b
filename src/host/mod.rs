//! The host, looked at before any VM is made: whether VMs can start on it, how well it keeps them apart, and what makes them slow.
//!
//! Each file judges one part of the host. What it reads and what it asks the kernel for are given to it, so that tests can give
//! something else. Nothing here changes the host, and no file is read further than is needed.

mod check;
mod confinement;
mod cpu;
mod finding;
mod kvm;
mod limits;
mod memory;
mod neighbours;
mod root;
#[cfg(test)]
#[path = "tree_test.rs"]
mod tree;
mod vulnerabilities;

pub use check::HostCheck;
pub(crate) use cpu::CoreScheduling;
pub use finding::{Finding, FindingLevel};
