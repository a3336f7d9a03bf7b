//! `cargo xtask test`: every check and test, and one summary at the end.

mod bench;
mod capi;
mod count;
mod direct;
mod example;
pub mod kvm;
mod listing;
mod models;
mod nightly;
mod package;
mod public_api;
mod semver;
mod steps;
pub mod summary;

use std::time::Instant;

use crate::args::TestOptions;
use crate::distro::Distro;
use crate::exec::Result;
use crate::host::Kvm;
use crate::packages::{self, Purpose};
use summary::Summary;

const PURPOSES: [Purpose; 6] =
    [Purpose::Build, Purpose::Guest, Purpose::Nested, Purpose::Network, Purpose::CFace, Purpose::Oracle];

/// The browser is large, so it is installed only for the check that needs it, and where there is a package of it.
fn purposes(options: &TestOptions, distro: &Distro) -> Vec<Purpose> {
    let all = options.filter.is_none() && !options.skip_checks;
    let shows_page = options.check.as_deref().map_or(all, |check| check == steps::PAGE);
    let browser = (shows_page && distro.has_browser()).then_some(Purpose::Browser);
    PURPOSES.into_iter().chain(browser).collect()
}

/// Runs everything; returns the exit status.
pub fn run(options: &TestOptions) -> Result<u8> {
    let began = Instant::now();
    let place = kvm::Place::choose(Kvm::detect(), options.nested);
    println!("host: {place}");
    let distro = Distro::detect()?;
    packages::ensure(&distro, &purposes(options, &distro))?;
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
