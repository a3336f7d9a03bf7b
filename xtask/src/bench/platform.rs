//! `cargo xtask bench platform`: the edge beside nginx, by the program `platform/benches/edge`, and apps with Debian's kernel, by
//! `platform/tests/linux_figures`.

use std::time::Instant;

use super::turn::Turn;
use crate::args::TestOptions;
use crate::cargo::cargo;
use crate::check::kvm;
use crate::check::summary::Summary;
use crate::distro::Distro;
use crate::exec::{self, Result};
use crate::host::Kvm;
use crate::packages::{self, Purpose};

/// Runs all of it, or one part; returns the exit status.
pub fn run(part: Option<&str>) -> Result<u8> {
    let distro = Distro::detect()?;
    let is_wanted = |name| part.is_none_or(|part| part == name);
    let _turn = Turn::wait()?;
    if is_wanted("edge") {
        packages::ensure(&distro, &[Purpose::Build, Purpose::Oracle, Purpose::Proxy])?;
        exec::run(cargo().args(["bench", "--quiet", "--package", "vmcell-platform", "--bench", "edge"]))?;
    }
    if is_wanted("apps") { apps(&distro) } else { Ok(0) }
}

/// On this host if its KVM boots Linux, or else in the nested host, where all times are long.
fn apps(distro: &Distro) -> Result<u8> {
    packages::ensure(distro, &[Purpose::Build, Purpose::Guest, Purpose::Nested, Purpose::Network, Purpose::Oracle])?;
    let (began, mut summary) = (Instant::now(), Summary::default());
    let place = kvm::Place::choose(Kvm::detect(), false);
    println!("host: {place}");
    let options = TestOptions { filter: Some("linux_figures".into()), long: true, ..TestOptions::default() };
    kvm::run(&place, distro, &options, &mut summary);
    Ok(summary.print(began.elapsed()))
}
