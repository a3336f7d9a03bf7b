//! The nested host: QEMU emulates a machine whose CPU has SVM, so that the distribution's kernel in it has a /dev/kvm like
//! hardware's. Slow, but it is there on any host, and what runs in it is the same program.

pub mod image;
mod marker;
pub mod qemu;
pub mod queue;
mod session;
pub mod shards;
