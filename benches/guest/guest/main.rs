//! A guest that puts load on one virtio device, as a well-behaved driver would, and says how much was done.
//!
//! It polls, in user mode: where KVM has no hardware to build on, ring 0 is emulated and an interrupt would cost more than a
//! request. The machine and the registers are those of the tests' guest.
#![no_std]
#![no_main]

mod body;
#[path = "../../../tests/guests/guest/runtime.rs"]
mod runtime;
