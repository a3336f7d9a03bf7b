//! What every run needs: the guest, the floor, a disk's file, a TAP.

use std::path::PathBuf;
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
        let floor = cargo::build_program("vmcell-bench-floor", options.profile)?;
        let folder = match &options.dir {
            Some(dir) => PathBuf::from(dir),
            None => cargo::target_dir().join("xtask/bench"),
        };
        let scratch = Scratch::new(&folder, "bench")?;
        let guest = scratch.path().join("guest.elf");
        std::fs::write(&guest, guest_image()?).context(guest.display())?;
        let rate = exec::capture_text(Command::new(&floor).arg("tsc"))?;
        let tsc_khz = rate.trim().parse().context("the rate of the time stamp counter")?;
        let medium = Medium::prepare(&folder, options.disk_mib)?;
        let tap = rows.iter().any(Row::needs_network) && exec::is_root();
        let tap = if tap { Some(Tap::make()?) } else { None };
        Ok(Self { guest, floor, tsc_khz, medium, tap, scratch })
    }
}

fn guest_image() -> Result<&'static [u8]> {
    vmcell_bench_guest::image().ok_or_else(|| Error::new("there is no guest for this CPU yet"))
}
