//! What is said on the stream: lines of JSON, and pieces of files.

use std::io::{BufRead, Read, Write};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::fault::{Context, Fault, Result};
use crate::lines::Hidden;

/// The longest piece, in bytes.
pub const MOST_PIECE: usize = 1 << 20;
/// The longest line, in bytes.
pub const MOST_SAID: u64 = 64 << 10;
/// The most files that build on each other: more than a volume may have.
pub const MOST_FILES: usize = 32;

/// What the side with the volume offers.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Offer {
    /// The app.
    pub app: String,
    /// The volume's name.
    pub volume: String,
    /// How often the volume was promoted. A copy takes nothing from an earlier life.
    pub generation: u64,
    /// Its size in bytes.
    pub size: u64,
    /// The snapshots that are sent, each over the one before it; the last one is what the copy is to have.
    pub chain: Vec<Link>,
    /// The key of the volume, in hexadecimal digits.
    pub key: Hidden,
}

/// A file of a chain.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Link {
    /// Its number.
    pub file: u32,
    /// When the snapshot was made, seconds since 1970.
    pub created: u64,
    /// The volume's size at that time.
    pub size: u64,
    /// Whether somebody has made it who wants it to stay.
    pub stays: bool,
}

/// What the side with the copy answers.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// These files are there.
    Has(Vec<u32>),
    /// The next file is to be sent from this byte on.
    From(u64),
    /// A file is there as a whole.
    Took(u32),
    /// All is there, and written down.
    Done(u32),
    /// The volume was promoted where the copy was: it has had so many lives.
    Promoted(u64),
    /// It is refused.
    Refused(Fault),
}

/// What is said of a file before its pieces.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// Its number.
    pub file: u32,
    /// Its length.
    pub len: u64,
    /// Another one if it was replaced by another file, which may have its data in other places.
    pub tag: String,
}

/// Pieces of a file, each with the digest of all that were sent up to it.
pub struct Pieces<S> {
    stream: S,
    digest: Sha256,
}

const DIGEST: usize = 32;

impl<S> Pieces<S> {
    /// Of a new file.
    pub fn new(stream: S) -> Self {
        Self { stream, digest: Sha256::new() }
    }

    fn note(&mut self, at: u64, bytes: &[u8]) -> [u8; DIGEST] {
        self.digest.update(at.to_be_bytes());
        self.digest.update(bytes);
        self.digest.clone().finalize().into()
    }
}

impl<S: Write> Pieces<S> {
    /// Sends a piece.
    ///
    /// # Errors
    /// Those of the stream.
    pub fn put(&mut self, at: u64, bytes: &[u8]) -> Result<()> {
        let len = u32::try_from(bytes.len()).context("a piece")?;
        let digest = self.note(at, bytes);
        let head = [&at.to_be_bytes()[..], &len.to_be_bytes(), &digest].concat();
        self.stream.write_all(&head).and_then(|()| self.stream.write_all(bytes)).context("the other host is gone")
    }

    /// Says that there are no more.
    ///
    /// # Errors
    /// Those of the stream.
    pub fn end(mut self) -> Result<()> {
        self.put(0, &[])?;
        self.stream.flush().context("the other host is gone")
    }
}

impl<S: BufRead> Pieces<S> {
    /// Reads a piece into `room`; returns where it lies. None: there are no more.
    ///
    /// # Errors
    /// Those of the stream; a piece is longer than [`MOST_PIECE`], or has another digest.
    pub fn take(&mut self, room: &mut Vec<u8>) -> Result<Option<u64>> {
        let (mut at, mut len, mut digest) = ([0; 8], [0; 4], [0; DIGEST]);
        let gone = "the stream ends in the middle of a file";
        let read = self.stream.read_exact(&mut at).and_then(|()| self.stream.read_exact(&mut len));
        read.and_then(|()| self.stream.read_exact(&mut digest)).context(gone)?;
        let (at, len) = (u64::from_be_bytes(at), u32::from_be_bytes(len));
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        if len > MOST_PIECE {
            return Err(Fault::new(format!("a piece of {len} bytes; allowed are {MOST_PIECE}")));
        }
        room.clear();
        let read = self.stream.by_ref().take(len as u64).read_to_end(room).context(gone)?;
        if read != len {
            return Err(Fault::new(gone));
        }
        // Before anything of it is written.
        if self.note(at, room) != digest {
            return Err(Fault::new(format!("the piece at byte {at} came with another digest than it has")));
        }
        Ok((len > 0).then_some(at))
    }
}
