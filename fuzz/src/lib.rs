//! Fuzz targets: each is a function from bytes to nothing that panics if a device breaks a promise.
//!
//! The code that ships runs on the calling thread, turn by turn, without a clock, so an input does the same each time. What
//! it should do is said by models, written from the specification, that share no code with it.
//!
//! Two things run the targets: libFuzzer, guided by coverage (`fuzz_targets/`), and [`sweep`], which needs nothing but a
//! compiler (`tests/`).

pub mod alloc;
pub mod input;
pub mod queue;
pub mod ring;
pub mod sweep;
pub mod world;

/// A target by its name.
pub struct Target {
    /// As in `cargo xtask fuzz NAME`, and as its folder of seeds is called.
    pub name: &'static str,
    /// Runs one input.
    pub run: fn(&[u8]),
    /// Inputs that reach far, by their names.
    pub seeds: fn() -> Vec<(&'static str, Vec<u8>)>,
}

/// All targets.
pub const TARGETS: &[Target] = &[Target { name: "queue", run: queue::run, seeds: queue::seeds }];
