//! A guest that does what no driver may, to show that nobody but itself is hurt by it.
//!
//! The command line says which part it plays: `case=NAME` for one of the cases, `case=neighbour` for the well-behaved one.
//! It finds its devices by `virtio_mmio.device=`, polls, and tells over the serial port what it did. See `body`.
#![no_std]
#![no_main]

mod body;
mod runtime;
