//! Files that say which parts of a guest's RAM are used first.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::part::Part;
use super::read::unreadable;
use super::refused;
use crate::error::Result;
use crate::memory::GuestAddress;
use crate::sys::open_disk;

/// More than two million ranges: a guest of 128 GiB has no more.
const MOST: u64 = 64 << 20;
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    version: u32,
    /// The address and the length of each.
    ranges: Vec<(u64, u64)>,
}

/// Writes the file, which replaces one of that name at once.
pub(crate) fn write_working_set(path: &Path, ranges: &[(GuestAddress, u64)]) -> Result<()> {
    let ranges = ranges.iter().map(|(start, len)| (start.0, *len)).collect();
    let text = serde_json::to_vec(&Written { version: VERSION, ranges })
        .map_err(|e| refused("it cannot be written").with_source(e))?;
    if text.len() as u64 > MOST {
        return Err(refused(format!("it takes {} bytes, allowed are {MOST}", text.len())));
    }
    let failed = |e: std::io::Error| refused("it cannot be written").with_source(e);
    let mut part = Part::new(path, true)?;
    part.file.write_all(&text).map_err(failed)?;
    part.put_in_place(path).map_err(failed)
}

/// Reads such a file.
pub(crate) fn read_working_set(path: &Path) -> Result<Vec<(GuestAddress, u64)>> {
    let file = open_disk(path, false, false).map_err(|e| refused("it cannot be opened").with_source(e))?;
    let written: Written = serde_json::from_slice(&bytes_of(file)?)
        .map_err(|e| refused("it is no working set, or is damaged").with_source(e))?;
    if written.version != VERSION {
        return Err(refused(format!("it is of version {}, allowed is {VERSION}", written.version)));
    }
    Ok(written.ranges.into_iter().map(|(start, len)| (GuestAddress(start), len)).collect())
}

fn bytes_of(file: File) -> Result<Vec<u8>> {
    let about = file.metadata().map_err(unreadable)?;
    if !about.is_file() || about.len() > MOST {
        return Err(refused(format!("it is no regular file of at most {MOST} bytes")));
    }
    let mut bytes = Vec::new();
    file.take(MOST).read_to_end(&mut bytes).map_err(unreadable)?;
    Ok(bytes)
}
