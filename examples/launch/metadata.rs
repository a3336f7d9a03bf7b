//! What the guest is told of itself by a network card.

use std::path::Path;

use vmcell::{Error, ErrorKind, Metadata, Nic, VmBuilder, VmConfig};

use crate::describe::read_text;

/// The VM as described, with the JSON in a file as its metadata. The last `taps` cards are those of the command line, of which the first
/// has the service.
pub fn with_metadata(config: &VmConfig, path: &Path, taps: usize) -> vmcell::Result<VmBuilder> {
    let metadata = Metadata::new();
    let json = read_text(path, "metadata")?;
    metadata.set(&json).map_err(|e| Error::new(e.kind(), format!("{}: {}", path.display(), e.chain())))?;
    let mut without = config.clone();
    let taps = without.nics.split_off(config.nics.len() - taps);
    let Some((first, others)) = taps.split_first() else {
        return Err(Error::new(ErrorKind::InvalidConfig, "--metadata was given without the --tap that it is read by"));
    };
    let mut builder = without.builder().nic(Nic::from_config(first)?.metadata(&metadata));
    for tap in others {
        builder = builder.nic(Nic::from_config(tap)?);
    }
    Ok(builder)
}
