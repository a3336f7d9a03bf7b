//! The repository's own commands: `cargo xtask run`, `cargo xtask test`, `cargo xtask fuzz` and `cargo xtask bench`.
//!
//! The first two do all of their own set-up: they find out which kind of KVM this host has ([`host`]), install missing packages
//! ([`packages`]), prepare a guest and keep it in a cache ([`guest`], [`cache`]), and start the nested host if this one
//! cannot boot Linux ([`nested`]).

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod args;
mod bench;
mod cache;
mod cargo;
mod check;
mod distro;
mod exec;
mod fuzz;
mod guest;
mod host;
mod launcher;
mod nested;
mod packages;
mod run;
mod scratch;
mod terminal;
mod tools;

use std::process::ExitCode;

use args::Command;

fn main() -> ExitCode {
    let command = match args::parse(std::env::args().skip(1)) {
        Ok(command) => command,
        Err(error) => {
            eprintln!("xtask: {error}");
            return ExitCode::from(2);
        }
    };
    let outcome = match command {
        Command::Help => {
            print!("{}", args::USAGE);
            Ok(0)
        }
        Command::Run(options) => run::run(&options),
        Command::Test(options) => check::run(&options),
        Command::Fuzz(options) => fuzz::run(&options),
        Command::Bench(options) => bench::run(&options),
        Command::Instructions(options) => bench::instructions::run(&options),
        Command::Scale(options) => bench::scale::run(&options),
        Command::Snapshot(options) => bench::snapshot::run(&options),
        Command::Api(options) => bench::api::run(&options),
        Command::Volume => bench::volume::run(),
        Command::Network(part) => bench::network::run(part.as_deref()),
        Command::Platform(part) => bench::platform::run(part.as_deref()),
    };
    match outcome {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprintln!("xtask: {error}");
            ExitCode::FAILURE
        }
    }
}
