//! One short round of the benchmarks, so that they do not rot. Its figures are thrown away.

use std::time::{Duration, Instant};

use super::summary::{Status, Summary};
use crate::bench;
use crate::host::Kvm;

const NAME: &str = "benchmarks (one short round)";

/// Runs it on this host's KVM; the guest is a small one, and the nested host has no compiler.
pub fn run(summary: &mut Summary) {
    let kvm = Kvm::detect();
    if !kvm.runs_tiny_guests() {
        return summary.add(NAME, Status::Skipped(format!("needs a KVM on this host: {kvm}")), Duration::ZERO);
    }
    println!("\n== {NAME}");
    let began = Instant::now();
    let status = match bench::rehearse() {
        Ok(()) => Status::Passed,
        Err(error) => Status::Failed(error.to_string()),
    };
    summary.add(NAME, status, began.elapsed());
}
