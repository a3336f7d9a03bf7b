//! Firecracker's API over a Unix socket, for a machine of vmcell's: what orchestrators that exist drive, on the public interface alone.
//!
//! | File or folder | What it is |
//! |---|---|
//! | `http/` | requests from bytes, answers to bytes |
//! | `fault` | a request that is refused |
//! | `log` | the program's own log |
//! | `api/` | the API's resources as data, and which path means which |
//! | `machine/` | the one machine: what it is to be, and what it does |
//! | `server/` | the socket and its connections |
//! | `jail/` | what the program gives up |
//! | `options`, `program` | the command line, and the loop that all runs in |
//!
//! One thread has the machine and all connections, so that calls are served one after another and no state is shared. It waits for the
//! sockets, for the end of the guest and for signals, and never for a client.

// Clients choose the bytes and the numbers: none of them may panic, wrap around, or lose bits.
#![cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::arithmetic_side_effects,
        clippy::cast_possible_truncation,
        clippy::cast_possible_wrap,
        clippy::cast_sign_loss,
        clippy::print_stdout,
        clippy::print_stderr
    )
)]

pub mod api;
pub mod fault;
pub mod http;
pub mod jail;
pub mod log;
pub mod machine;
pub mod options;
pub mod program;
pub mod server;
