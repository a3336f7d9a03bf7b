//! A VM of an app, and the thread that keeps it running.
//!
//! `timed` is a stream on which all has to be said in time. `phase` is what can become of a VM, and `journal` what has become of all of them of late. `guest` is what a VM has to offer, as a trait, so that tests can do without one; `launch` makes real ones. `health` asks whether the services
//! work. `vm` is the VM as the rest of the program knows it; `keeper` starts it, watches it and starts it again.

#[cfg(test)]
pub(crate) mod fake_test;
pub mod guest;
pub mod health;
mod journal;
mod keeper;
pub mod launch;
mod phase;
mod timed;
mod vm;

pub use journal::{Journal, Note};
pub use keeper::start;
pub use phase::Phase;
pub use vm::{Counted, Machine, Report};
