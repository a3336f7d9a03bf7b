//! The harness of `kvm_hostile`: guests, measurements, and the verdict.
#![allow(clippy::print_stdout, reason = "what a case showed; a test that passes keeps it to itself")]

pub mod case;
pub mod faults;
mod guests;
mod host;
mod measure;
pub mod page;
mod probe;
mod run;
mod scarce;
mod storage;
pub mod verdict;
pub mod villain;
