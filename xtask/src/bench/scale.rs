//! `cargo xtask bench scale`: many VMs in one process. The program is `benches/vms`.

use std::path::Path;

use super::turn::Turn;
use crate::args::ScaleOptions;
use crate::cargo::cargo;
use crate::exec::{self, Error, Result};
use crate::host::Kvm;

/// Builds the program and runs it; returns the exit status.
pub fn run(options: &ScaleOptions) -> Result<u8> {
    run_program("scale", "vms", options.vms, &[])
}

/// Builds one of the programs in `benches`, and runs it on this host with a number, and with files that the environment names.
pub fn run_program(command: &str, program: &str, number: u32, files: &[(&str, &Path)]) -> Result<u8> {
    let kvm = Kvm::detect();
    if !kvm.runs_tiny_guests() {
        return Err(Error::new(format!("bench {command} needs a KVM on this host: {kvm}")));
    }
    println!("host: {kvm}");
    let _turn = Turn::wait()?;
    let mut bench = cargo();
    bench.args(["bench", "--quiet", "--bench", program, "--", &number.to_string()]);
    files.iter().for_each(|(name, path)| _ = bench.env(name, path));
    exec::run(&mut bench)?;
    Ok(0)
}
