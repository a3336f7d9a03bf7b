//! Secrets, with the feature of that name: what a guest is given and the host's disk never has in clear.
//!
//! [`Secret`] is one of them, in memory of its own. A [`SealingKey`] seals it to a host, whose [`HostKey`] alone opens what comes of it, a
//! [`SealedSecret`]. A [`SecretStore`] is a file with the sealed secrets of one application. `docs/secrets.md` says what is in the files, and
//! who can read what.
//!
//! Calls that make or take keys zero the 256 KiB of the stack that they may have used, so that they need a thread whose stack has 320 KiB left.
//!
//! All calls here that take a path block while they read and write files. None belongs on an
//! [I/O thread](crate::event#what-a-callback-may-do).

mod contents;
mod credential;
mod fields;
mod files;
mod host_key;
mod info;
mod key_id;
mod replace;
mod sealed;
mod sealing_key;
#[allow(clippy::module_inception, reason = "the room is called after its main type")]
mod secret;
mod store;
mod suite;
mod text;
mod turn;

pub(crate) use credential::{Place, check};
pub use host_key::HostKey;
pub use info::{SecretInfo, StoreInfo};
pub use sealed::{MOST_VERSION, SealedSecret};
pub use sealing_key::SealingKey;
pub use secret::Secret;
pub use store::SecretStore;
pub use suite::Suite;

use crate::error::{Error, ErrorKind};

fn refused(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Secret, message)
}

fn no_secret_memory(e: std::io::Error) -> Error {
    refused("no memory can be locked for a secret (RLIMIT_MEMLOCK, ulimit -l)").with_source(e)
}

fn no_random(e: std::io::Error) -> Error {
    refused("the host gives no random bytes").with_source(e)
}
