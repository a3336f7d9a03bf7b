//! The file that every contender has as its disk.
//!
//! Its blocks of 4 KiB begin and end with their number, which the guest checks. It is kept between runs of the command.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::exec::{self, Context, Result};

const BLOCK: usize = 4096;
const STAMP: usize = 8;

/// The file's path.
pub struct Medium {
    pub path: PathBuf,
}

impl Medium {
    /// Finds it in `folder`, or makes it.
    pub fn prepare(folder: &Path, mib: u32) -> Result<Self> {
        let path = folder.join(format!("disk-{mib}.img"));
        let len = u64::from(mib) << 20;
        if !path.metadata().is_ok_and(|meta| meta.len() == len) {
            let unfinished = folder.join(format!(".disk-{mib}-{}.img", std::process::id()));
            write(&unfinished, len).context(unfinished.display())?;
            std::fs::rename(&unfinished, &path).context(path.display())?;
        }
        Ok(Self { path })
    }

    /// Puts the file into the page cache for transfers that go through it, and takes it out for those that do not.
    pub fn settle(&self, floor: &Path, direct: bool) -> Result<()> {
        let mut command = Command::new(floor);
        // Written out in either case: what earlier rows left to be written must not be this one's load.
        exec::capture(command.arg("uncached").arg(&self.path))?;
        if direct { Ok(()) } else { exec::capture(Command::new(floor).arg("cached").arg(&self.path)).map(drop) }
    }
}

fn write(path: &Path, len: u64) -> std::io::Result<()> {
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
    // Not zeros, which a file system or a disk may have a shorter way for.
    let mut block = [0xa5; BLOCK];
    for number in 0..len / BLOCK as u64 {
        block[..STAMP].copy_from_slice(&number.to_le_bytes());
        block[BLOCK - STAMP..].copy_from_slice(&number.to_le_bytes());
        file.write_all(&block)?;
    }
    file.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_all()
}
