//! Messages that are lines of JSON, each of which has a bound.

use std::io::{BufRead, Read, Write};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::fault::{Context, Fault, Result};

/// A text that is not printed.
#[derive(Clone, Deserialize, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Hidden(pub String);

impl std::fmt::Debug for Hidden {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("..")
    }
}

/// A message as a line.
///
/// # Errors
/// It cannot be JSON.
pub fn line(what: &impl Serialize) -> Result<Vec<u8>> {
    let mut line = serde_json::to_vec(what).context("a message")?;
    line.push(b'\n');
    Ok(line)
}

/// Writes one line.
///
/// # Errors
/// Those of the stream.
pub fn send(to: &mut impl Write, what: &impl Serialize) -> Result<()> {
    to.write_all(&line(what)?).context("the other side is gone")
}

/// Reads one line of at most `most` bytes; none if the stream ends before it.
///
/// # Errors
/// Those of the stream; the line is longer, or says something else.
pub fn receive<T: DeserializeOwned>(from: &mut impl BufRead, most: u64) -> Result<Option<T>> {
    let mut line = Vec::new();
    let read = from.by_ref().take(most).read_until(b'\n', &mut line).context("the other side is gone")?;
    if read == 0 { Ok(None) } else { parse(&line, most).map(Some) }
}

/// The message in a line.
///
/// # Errors
/// It has no end, or says something else.
pub fn parse<T: DeserializeOwned>(line: &[u8], most: u64) -> Result<T> {
    if line.last() != Some(&b'\n') {
        return Err(Fault::new(format!("a message of {} bytes has no end; allowed are {most}", line.len())));
    }
    serde_json::from_slice(line).context("a message")
}
