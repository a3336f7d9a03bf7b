//! Secrets, with the feature of that name: what a guest is given and the host's disk never has in clear.
//!
//! [`Secret`] is one of them, in memory of its own.

#[allow(clippy::module_inception, reason = "the room is called after its main type")]
mod secret;

pub use secret::Secret;

use crate::error::{Error, ErrorKind};

fn refused(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Secret, message)
}

fn no_secret_memory(e: std::io::Error) -> Error {
    refused("no memory can be locked for a secret (RLIMIT_MEMLOCK, ulimit -l)").with_source(e)
}
