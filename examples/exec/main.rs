//! Runs a command in a guest, without a network: over the vsock of a VM that another program has started.
//!
//! ```text
//! launch --kernel vmlinuz ... --vsock 3,path=guest.vsock &   # in the guest: python3 agent.py
//! exec guest.vsock 'uname -a; exit 3'
//! ```
//!
//! Exit status: that of the command; 128 and the number of the signal if one ended it; 125 if the command could not be run.
#![allow(clippy::print_stderr, reason = "a program talks to the person who runs it")]

mod client;

use std::io;
use std::path::Path;
use std::process::ExitCode;

const FAILED: u8 = 125;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [path, command] = arguments.as_slice() else {
        eprintln!("exec: expected the path of a VM's vsock and a command");
        return ExitCode::from(FAILED);
    };
    let agent = client::connect(Path::new(path));
    match agent.and_then(|agent| client::run(agent, command, &mut io::stdout(), &mut io::stderr())) {
        Ok(status) if status < 0 => ExitCode::from(u8::try_from(128 - status).unwrap_or(FAILED)),
        Ok(status) => ExitCode::from(u8::try_from(status).unwrap_or(FAILED)),
        Err(error) => {
            eprintln!("exec: {error}");
            ExitCode::from(FAILED)
        }
    }
}
