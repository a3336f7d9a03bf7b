//! What is said of VMs, and of the host.

use std::fmt::Display;
use std::io::{self, Write};

use vmcell::{Error, ErrorKind};

/// The host did not do something.
pub fn host(what: impl Display, cause: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(ErrorKind::Host, what.to_string()).with_source(cause)
}

/// A line on standard output. If nobody reads it, the VMs go on all the same.
pub fn say(name: &str, what: impl Display) {
    let _ = writeln!(io::stdout(), "{name}: {what}");
}
