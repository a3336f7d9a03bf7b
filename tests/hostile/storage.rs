//! The bad guest's disk and network.

use std::fs::File;

use tempfile::NamedTempFile;
use vmcell::testing::memory_disk;
use vmcell::{Disk, VmBuilder};

use super::case::{Host, Setup, Storage};

const MIB: u64 = 1 << 20;

/// What is there before the guest is, and stays when it is gone.
pub struct Bench {
    disk: File,
    _named: Option<NamedTempFile>,
}

impl Bench {
    /// # Errors
    /// Why this host cannot run the case.
    pub fn new(setup: &Setup) -> Result<Self, String> {
        let named = match setup.storage {
            Storage::Memory => None,
            Storage::File => Some(NamedTempFile::new().expect("a temporary file")),
            Storage::Small => return Err("not yet".into()),
        };
        let disk = match &named {
            None => memory_disk(setup.mib * MIB),
            Some(named) => {
                named.as_file().set_len(setup.mib * MIB).expect("the file can be as large");
                named.reopen().expect("the file is there")
            }
        };
        Ok(Self { disk, _named: named })
    }

    pub fn host(&self) -> Host<'_> {
        Host { disk: &self.disk, tap: None }
    }

    /// Gives a VM its devices.
    pub fn furnish(&self, builder: VmBuilder, setup: &Setup) -> VmBuilder {
        let disk = self.disk.try_clone().expect("the host gives descriptors");
        builder.disk(Disk::from_file(disk).expect("a disk").read_only(setup.read_only))
    }
}
