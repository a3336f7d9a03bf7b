//! `cargo xtask bench volume`: what encryption takes. The program is `benches/volume`.

use super::turn::Turn;
use crate::cargo::cargo;
use crate::exec::{self, Result};

/// Builds the program and runs it, alone; returns the exit status.
pub fn run() -> Result<u8> {
    let _turn = Turn::wait()?;
    exec::run(cargo().args(["bench", "--quiet", "--bench", "volume"]))?;
    Ok(0)
}
