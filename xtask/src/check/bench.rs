//! One short round of the benchmarks, so that they do not rot; its figures are thrown away. And the instructions of the library's
//! pieces, which are held against those recorded.

use std::time::{Duration, Instant};

use super::summary::{Status, Summary};
use crate::bench;
use crate::exec;
use crate::host::Kvm;

const NAME: &str = "benchmarks (one short round)";
const INSTRUCTIONS: &str = "instructions of the pieces";

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

/// Counts what the pieces need.
pub fn instructions(summary: &mut Summary) {
    if !exec::exists("valgrind") {
        return summary.add(INSTRUCTIONS, Status::Skipped("valgrind is not installed".into()), Duration::ZERO);
    }
    println!("\n== {INSTRUCTIONS}");
    let began = Instant::now();
    let status = match bench::instructions::check() {
        Ok(notes) => {
            notes.into_iter().for_each(|note| summary.note(note));
            Status::Passed
        }
        Err(error) => Status::Failed(error.to_string()),
    };
    summary.add(INSTRUCTIONS, status, began.elapsed());
}
