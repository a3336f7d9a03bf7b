//! The key to which a host seals what it keeps.

use std::path::Path;

use vmcell::secret::HostKey;

use crate::fault::Result;

/// Reads the key in this file, or makes it there if there is none.
///
/// # Errors
/// It cannot be read, others may read it, or it cannot be made.
pub fn host_key(path: &Path) -> Result<HostKey> {
    if path.exists() {
        return Ok(HostKey::file(path)?);
    }
    let key = HostKey::generate()?;
    key.save(path)?;
    Ok(key)
}
