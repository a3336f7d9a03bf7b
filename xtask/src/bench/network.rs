//! `cargo xtask bench network`: what private networks take. The program is `benches/network`.

use super::setup::{build_floor, tsc_khz, write_guest};
use super::turn::Turn;
use crate::cargo::{self, cargo};
use crate::exec::{self, Error, Result};
use crate::host::Kvm;
use crate::scratch::Scratch;

/// Builds the program and the guests, and runs all of it, or one part; returns the exit status.
pub fn run(part: Option<&str>) -> Result<u8> {
    let kvm = Kvm::detect();
    if !kvm.runs_tiny_guests() {
        return Err(Error::new(format!("bench network needs a KVM on this host: {kvm}")));
    }
    println!("host: {kvm}");
    let _turn = Turn::wait()?;
    let scratch = Scratch::new(&cargo::target_dir().join("xtask/bench"), "network")?;
    let rate = tsc_khz(&build_floor(cargo::RELEASE)?)?;
    let mut bench = cargo();
    bench.args(["bench", "--quiet", "--bench", "network", "--"]).args(part);
    bench.env("VMCELL_GUEST", write_guest(&scratch)?).env("VMCELL_TSC_KHZ", rate.to_string());
    exec::run(&mut bench)?;
    Ok(0)
}
