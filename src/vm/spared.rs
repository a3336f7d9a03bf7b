//! Keeps a console from overwriting what the VM is made of.

use std::path::Path;

use crate::block::{Disk, Identity};
use crate::config::Boot;
use crate::console::Console;
use crate::error::{Error, ErrorKind, Result};

/// Refuses a console's file that is the kernel, the initrd or a disk: a console empties its file, or appends to it.
pub(super) fn check(console: &Console, disks: &[Disk], boot: &Boot) -> Result<()> {
    for path in console.files().map(|file| file.path.as_path()) {
        // One that is not there is no other file either.
        let Some(identity) = identity_at(path) else { continue };
        let what = if identity_at(&boot.kernel) == Some(identity) {
            "the kernel".to_owned()
        } else if boot.initrd.as_deref().and_then(identity_at) == Some(identity) {
            "the initrd".to_owned()
        } else {
            match disks.iter().find(|disk| disk.identity().is_ok_and(|of_disk| of_disk == Some(identity))) {
                Some(disk) => format!("disk {}", disk.name()),
                None => continue,
            }
        };
        let message = format!("the console's file {} is {what}, which the console would overwrite", path.display());
        return Err(Error::new(ErrorKind::InvalidConfig, message));
    }
    Ok(())
}

fn identity_at(path: &Path) -> Option<Identity> {
    path.metadata().ok().map(|metadata| Identity::of(&metadata))
}
