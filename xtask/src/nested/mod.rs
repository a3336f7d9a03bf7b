//! The nested host: QEMU emulates a machine whose CPU has SVM, so the distribution's kernel in it has a /dev/kvm like
//! hardware's. It is slow, but runs on any host, and the programs in it are the same.

pub mod image;
mod marker;
pub mod qemu;
pub mod queue;
mod session;
pub mod shards;
