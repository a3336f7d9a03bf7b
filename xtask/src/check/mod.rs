//! `cargo xtask test`: every check and test, and one summary at the end.

mod bench;
mod capi;
mod count;
mod direct;
mod kvm;
mod listing;
mod models;
mod nightly;
mod package;
mod public_api;
mod semver;
mod steps;
mod summary;

use std::time::Instant;

use crate::args::TestOptions;
use crate::distro::Distro;
use crate::exec::Result;
use crate::host::Kvm;
use crate::packages::{self, Purpose};
use summary::Summary;

const PURPOSES: [Purpose; 6] =
    [Purpose::Build, Purpose::Guest, Purpose::Nested, Purpose::Network, Purpose::CFace, Purpose::Oracle];

/// Runs everything; returns the exit status.
pub fn run(options: &TestOptions) -> Result<u8> {
    let began = Instant::now();
    let place = kvm::Place::choose(Kvm::detect(), options.nested);
    println!("host: {place}");
    let distro = Distro::detect()?;
    packages::ensure(&distro, &PURPOSES)?;
    let mut summary = Summary::default();
    if let Some(check) = &options.check {
        steps::run(Some(check), options.long, &mut summary)?;
        return Ok(summary.print(began.elapsed()));
    }
    if options.skip_checks || options.filter.is_some() {
        println!("checks: left out, as asked");
    } else {
        steps::run(None, options.long, &mut summary)?;
    }
    kvm::run(&place, &distro, options, &mut summary);
    if options.filter.is_none() {
        bench::run(&mut summary);
        bench::instructions(&mut summary);
    }
    Ok(summary.print(began.elapsed()))
}
