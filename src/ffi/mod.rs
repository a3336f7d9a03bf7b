//! The C face: every function of `include/vmcell.h`, one file an object.
//!
//! Conversions only: a pointer, a number or a text comes in and becomes a value of the rooms below; their answer goes
//! out again. The header documents each function; it is generated from this room, and `cbindgen.toml` holds the prose
//! at its top. `cargo cinstall` makes the libraries, with the feature `capi`: only builds for C have these symbols, so that two versions of
//! the crate can be linked into one Rust program. Such programs use the rooms below.
//!
//! Every function runs inside [`guard`], so no panic reaches the caller. No pointer to one of our objects is ever
//! followed: [`objects`] looks it up.
#![allow(unsafe_code, reason = "reads and writes what C callers point to")]
#![allow(clippy::missing_safety_doc, reason = "the header states once, for all functions, what callers must respect")]

mod balloon;
mod caller;
mod config;
mod config_cgroup;
mod config_console;
mod config_cpu;
mod config_json;
mod config_log;
mod config_memory;
mod config_rng;
mod config_threads;
mod config_vsock;
mod console;
mod console_status;
mod convert;
mod counter;
mod disk;
mod disk_backend;
mod disk_handle;
mod disk_operation;
mod disk_port;
mod error;
mod failure;
mod guard;
mod host;
mod host_key;
mod io_thread;
mod jail;
mod library;
mod limit_group;
mod machine_address;
mod metadata;
mod network;
mod network_port;
mod nic;
mod nic_backend;
mod nic_frame;
mod nic_handle;
mod nic_port;
mod objects;
mod passt;
mod report;
mod secret;
mod secret_delivery;
mod secret_store;
mod service;
mod slot;
mod snapshot;
mod tunnel;
mod tunnel_peer;
mod unknown_peer;
mod vm;
mod vm_exit;
mod vm_metrics;
mod vm_rates;
mod vm_threads;
mod volume;
mod volume_handle;
mod volume_merge;
mod vsock;
mod wake;
mod wireguard_key;
