//! What private networks take: `cargo xtask bench network`.
//!
//! The switch beside two TAP devices and a bridge of the kernel's, with the same guests, in turns; WireGuard; and what a port takes while
//! nothing happens. A figure, no test: nothing is held to a limit.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that prints what it measures")]

mod bridge;
#[path = "../cpu.rs"]
mod cpu;
mod demand;
mod figures;
mod guest;
#[path = "../median.rs"]
mod median;
mod packet;
mod ports;
mod switch;
mod tunnel;
mod wireguard_go;

use std::process::ExitCode;

use vmcell::{Error, ErrorKind, Result};

/// Each contender has so many turns that count, after one to warm up.
const ROUNDS: usize = 7;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("network: {}", error.chain());
            ExitCode::FAILURE
        }
    }
}

/// The first argument that is not one of cargo's own names the only part that is measured.
fn run() -> Result<()> {
    let part = std::env::args().skip(1).find(|argument| !argument.starts_with("--"));
    let wants = |name: &str| part.as_ref().is_none_or(|part| part == name);
    if wants("ports") {
        ports::run()?;
    }
    if wants("demand") {
        demand::run()?;
    }
    if wants("switch") {
        switch::run()?;
    }
    if wants("wireguard") {
        tunnel::run()?;
    }
    Ok(())
}

fn failed(what: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Host, what.to_string())
}
