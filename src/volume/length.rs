//! How long a volume's file is to be, and whether it can be.

use std::fs::File;

use super::keys::{is_block_device, len_of};
use super::luks::Data;
use super::refused;
use crate::error::Result;

/// Refuses to make data longer that the header gives a length.
pub(super) fn check_unlimited(data: Data) -> Result<()> {
    data.len.map_or(Ok(()), |len| Err(refused(format!("its header limits it to {len} bytes"))))
}

/// Makes a file so long, unless it is longer.
pub(super) fn set_len(file: &File, len: u64) -> Result<()> {
    check_len(file, len)?;
    let set = if len_of(file)? < len { file.set_len(len) } else { Ok(()) };
    set.and_then(|()| file.sync_all()).map_err(|e| refused("its size cannot be changed").with_source(e))
}

/// Refuses a length that a block device does not have.
pub(super) fn check_len(file: &File, len: u64) -> Result<()> {
    let has = len_of(file)?;
    if has >= len || !is_block_device(file)? {
        return Ok(());
    }
    let message = format!(
        "it is a block device of {has} bytes and would need {len}: make that larger first (by lvextend, for instance)"
    );
    Err(refused(message))
}
