//! The C face: every function of `include/vmcell.h`, one file an object.
//!
//! Conversions only: a pointer, a number or a text comes in, becomes a value of the rooms below, and what they answer goes
//! out again. What a function does is told in the header, which is generated from this room and is its documentation;
//! `cbindgen.toml` holds the prose at its top. `cargo cinstall` makes the libraries; Rust programs use the rooms below.
//!
//! Every function runs inside [`guard`], so that no panic reaches the caller. No pointer to an object of ours is ever
//! followed: [`objects`] looks it up.
#![allow(unsafe_code, reason = "reads and writes what C callers point to")]
#![allow(clippy::missing_safety_doc, reason = "the header tells once, for all functions, what callers must keep to")]

mod config;
mod console;
mod convert;
mod disk;
mod error;
mod failure;
mod guard;
mod io_thread;
mod library;
mod nic;
mod objects;
mod report;
mod slot;
mod vm;
