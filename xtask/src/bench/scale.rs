//! `cargo xtask bench scale`: many VMs in one process. The program is `benches/vms`.

use super::turn::Turn;
use crate::args::ScaleOptions;
use crate::cargo::cargo;
use crate::exec::{self, Error, Result};
use crate::host::Kvm;

/// Builds the program and runs it; returns the exit status.
pub fn run(options: &ScaleOptions) -> Result<u8> {
    run_program("scale", "vms", options.vms)
}

/// Builds one of the programs in `benches`, and runs it on this host with a number.
pub fn run_program(command: &str, program: &str, number: u32) -> Result<u8> {
    let kvm = Kvm::detect();
    if !kvm.runs_tiny_guests() {
        return Err(Error::new(format!("bench {command} needs a KVM on this host: {kvm}")));
    }
    println!("host: {kvm}");
    let _turn = Turn::wait()?;
    exec::run(cargo().args(["bench", "--quiet", "--bench", program, "--", &number.to_string()]))?;
    Ok(0)
}
