//! `cargo xtask bench`: one guest under our launcher and under other monitors, in alternating rounds.
//!
//! | Question | Module |
//! |---|---|
//! | What is measured? | `rows` |
//! | Who takes part, and by which command line? | `contender` |
//! | On which file? | `medium` |
//! | How does one run go? | `session`, and what /proc says meanwhile: `process` |
//! | In which order do they run? | `rounds` |
//! | What is made of the figures? | `stats`, `report` |

mod contender;
mod medium;
mod process;
mod report;
mod rounds;
mod rows;
mod session;
mod stats;

use std::path::PathBuf;
use std::process::Command;

use crate::args::BenchOptions;
use crate::cargo;
use crate::exec::{self, Context, Error, Result};
use crate::host::Kvm;
use crate::scratch::Scratch;

/// What every run needs.
struct Setup {
    guest: PathBuf,
    floor: PathBuf,
    tsc_khz: u64,
    scratch: Scratch,
    medium: medium::Medium,
}

/// Runs the rows that the options leave; returns the exit status.
pub fn run(options: &BenchOptions) -> Result<u8> {
    let kvm = Kvm::detect();
    if !kvm.runs_tiny_guests() {
        return Err(Error::new(format!("the benchmarks need a KVM on this host: {kvm}")));
    }
    println!("host: {kvm}");
    let rows = rows::matching(&options.rows)?;
    let setup = Setup::prepare(options)?;
    let (contenders, absent) = contender::all(options, &setup.floor)?;
    let results = rounds::run(&rows, &contenders, &setup, options)?;
    print!("{}", report::table(&results, &absent));
    if let Some(path) = &options.json {
        let text = report::json(&results, options);
        std::fs::write(path, text).context(format_args!("cannot write {path}"))?;
    }
    Ok(0)
}

impl Setup {
    fn prepare(options: &BenchOptions) -> Result<Self> {
        let floor = cargo::build_program("vmcell-bench-floor")?;
        let folder = match &options.dir {
            Some(dir) => PathBuf::from(dir),
            None => cargo::target_dir().join("xtask/bench"),
        };
        let scratch = Scratch::new(&folder, "bench")?;
        let guest = scratch.path().join("guest.elf");
        std::fs::write(&guest, guest_image()?).context(guest.display())?;
        let rate = exec::capture_text(Command::new(&floor).arg("tsc"))?;
        let tsc_khz = rate.trim().parse().context("the rate of the time stamp counter")?;
        let medium = medium::Medium::prepare(&folder, options.disk_mib)?;
        Ok(Self { guest, floor, tsc_khz, scratch, medium })
    }
}

fn guest_image() -> Result<&'static [u8]> {
    vmcell_bench_guest::image().ok_or_else(|| Error::new("there is no guest for this CPU yet"))
}
