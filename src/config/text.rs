//! What no text may have in it that goes to the kernel of the host, or to that of the guest.

use std::ffi::OsStr;

use crate::error::{Error, ErrorKind, Result};

/// Refuses a NUL, where a text would end for the kernel; `what` is what the message calls the text.
pub(super) fn refuse_nul(what: &str, text: &OsStr) -> Result<()> {
    let Some(position) = text.as_encoded_bytes().iter().position(|byte| *byte == 0) else { return Ok(()) };
    let message = format!("{what} {text:?} has a NUL at byte {position}, allowed is none");
    Err(Error::new(ErrorKind::InvalidConfig, message))
}
