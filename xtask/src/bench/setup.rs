//! What every run needs: the guest, the floor, a disk's file, a TAP.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::medium::Medium;
use super::rows::Row;
use super::tap::Tap;
use crate::args::BenchOptions;
use crate::cargo;
use crate::exec::{self, Context, Error, Result};
use crate::scratch::Scratch;

pub struct Setup {
    pub guest: PathBuf,
    pub floor: PathBuf,
    pub tsc_khz: u64,
    pub medium: Medium,
    /// If a row needs one and we may make it.
    pub tap: Option<Tap>,
    pub scratch: Scratch,
}

impl Setup {
    pub fn prepare(options: &BenchOptions, rows: &[Row]) -> Result<Self> {
        let floor = build_floor(options.profile)?;
        let folder = match &options.dir {
            Some(dir) => PathBuf::from(dir),
            None => cargo::target_dir().join("xtask/bench"),
        };
        let scratch = Scratch::new(&folder, "bench")?;
        let guest = write_guest(&scratch)?;
        let tsc_khz = tsc_khz(&floor)?;
        let medium = Medium::prepare(&folder, options.disk_mib)?;
        let tap = rows.iter().any(Row::needs_network) && exec::is_root();
        let tap = if tap { Some(Tap::make()?) } else { None };
        Ok(Self { guest, floor, tsc_khz, medium, tap, scratch })
    }
}

/// The program that does the same work without a guest.
pub fn build_floor(profile: &str) -> Result<PathBuf> {
    cargo::build_program("vmcell-bench-floor", "vmcell-bench-floor", profile)
}

/// Writes the guest's image into a folder.
pub fn write_guest(scratch: &Scratch) -> Result<PathBuf> {
    let image = vmcell_bench_guest::image().ok_or_else(|| Error::new("there is no guest for this CPU yet"))?;
    let guest = scratch.path().join("guest.elf");
    std::fs::write(&guest, image).context(guest.display())?;
    Ok(guest)
}

/// The rate of the time stamp counter, which the guest is told.
pub fn tsc_khz(floor: &Path) -> Result<u64> {
    let rate = exec::capture_text(Command::new(floor).arg("tsc"))?;
    rate.trim().parse().context("the rate of the time stamp counter")
}
