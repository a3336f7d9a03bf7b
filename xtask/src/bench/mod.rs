//! `cargo xtask bench`: one guest under our launcher and under other monitors, in alternating rounds.
//!
//! | Question | Module |
//! |---|---|
//! | What is measured? | `rows` |
//! | Who takes part, and by which command line? | `contender` |
//! | On which file and which TAP? | `setup`, `medium`, `tap` |
//! | How does one run go? | `runs`, `session`, and what /proc says meanwhile: `process` |
//! | How is Linux's boot counted? | `boot`, `carry` |
//! | In which order do they run? | `rounds`, and `turn` between two commands |
//! | What is made of the figures? | `stats`, `result`, `report` |
//! | How many instructions do the library's pieces need? | `instructions`, a command of its own |
//! | What do many VMs in one process take? | `scale`, a command of its own |
//! | What do snapshots and forks take? | `snapshot`, a command of its own |
//! | What does encryption take? | `volume`, a command of its own |
//! | How soon and how well is Firecracker's API served? | `api`, a command of its own |
//! | What do private networks take? | `network`, a command of its own |
//! | How soon and how well does the platform answer? | `platform`, a command of its own |

pub mod api;
mod boot;
mod carry;
mod contender;
pub mod instructions;
mod medium;
pub mod network;
pub mod platform;
mod process;
mod report;
mod result;
mod rounds;
mod rows;
mod runs;
pub mod scale;
mod session;
mod setup;
pub mod snapshot;
mod stats;
mod tap;
mod turn;
pub mod volume;

use crate::args::BenchOptions;
use crate::cargo;
use crate::distro::Distro;
use crate::exec::{self, Context, Error, Result};
use crate::host::Kvm;
use crate::packages::{self, Purpose};

/// Runs the rows that the options leave; returns the exit status.
pub fn run(options: &BenchOptions) -> Result<u8> {
    let kvm = Kvm::detect();
    if !kvm.runs_tiny_guests() {
        return Err(Error::new(format!("the benchmarks need a KVM on this host: {kvm}")));
    }
    println!("host: {kvm}");
    let rows = rows::matching(&options.rows)?;
    packages::ensure(&Distro::detect()?, &purposes(options, &rows))?;
    let _turn = turn::Turn::wait()?;
    let setup = setup::Setup::prepare(options, &rows)?;
    let (contenders, absent) = contender::all(options, setup.scratch.path())?;
    for contender in &contenders {
        println!("{}: {}", contender.label, contender.about);
    }
    let results = rounds::run(&rows, &contenders, &setup, options)?;
    print!("{}", report::table(&results, &absent));
    if let Some(path) = &options.json {
        let text = report::json(&results, &contenders, &kvm.to_string(), options);
        std::fs::write(path, text).context(format_args!("cannot write {path}"))?;
    }
    Ok(0)
}

/// A short round of our launcher alone, one row of each kind; fails unless each gives a figure.
pub fn rehearse() -> Result<()> {
    let rows =
        ["first-byte", "memory", "disk-random-write-4k-depth32-buffered", "frames-sent-64", "frames-received-64"];
    let options = BenchOptions {
        rows: rows.map(String::from).into(),
        rounds: 1,
        run_ms: 100,
        qemu: false,
        disk_mib: 16,
        // It is built anyway.
        profile: cargo::RELEASE,
        ..BenchOptions::default()
    };
    let rows = rows::matching(&options.rows)?.into_iter().filter(|row| !row.needs_network() || exec::is_root());
    let rows: Vec<_> = rows.collect();
    let _turn = turn::Turn::wait()?;
    let setup = setup::Setup::prepare(&options, &rows)?;
    let (contenders, _) = contender::all(&options, setup.scratch.path())?;
    for result in rounds::run(&rows, &contenders[..1], &setup, &options)? {
        for (label, samples) in result.runs {
            samples.context(format_args!("{}: {label}", result.row.name))?;
        }
    }
    Ok(())
}

fn purposes(options: &BenchOptions, rows: &[rows::Row]) -> Vec<Purpose> {
    let boots = rows.iter().any(|row| row.load == rows::Load::Boot);
    let wanted = [
        (Purpose::Build, true),
        (Purpose::Nested, options.qemu || boots),
        (Purpose::Guest, boots),
        (Purpose::Network, rows.iter().any(rows::Row::needs_network)),
    ];
    wanted.into_iter().filter(|(_, wanted)| *wanted).map(|(purpose, _)| purpose).collect()
}
