//! A VM of an app, and the thread that keeps it running.
//!
//! `timed` is a stream on which all has to be said in time. `guest` is what a VM has to offer, as a trait, so that tests can do without one; `launch` makes real ones. `health` asks whether the services
//! work. `vm` is the VM as the rest of the program knows it; `keeper` starts it, watches it and starts it again.

#[cfg(test)]
pub(crate) mod fake_test;
pub mod guest;
pub mod health;
mod keeper;
pub mod launch;
mod timed;
mod vm;

pub use keeper::start;
pub use vm::{Counted, Machine, Phase, Report};
