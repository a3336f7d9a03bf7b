//! Helpers for tests, of this crate and of those that build on it (feature `test-util`).

mod guest;

pub use guest::TinyGuest;
