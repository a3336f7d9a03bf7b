//! A guest's half of a NIC, and the suite for whatever carries its frames.

mod conformance;
mod driver;
mod frames;
mod rules;
mod suite;
mod wire;

pub use conformance::NicConformance;
pub use driver::NicDriver;
pub use wire::Wire;
