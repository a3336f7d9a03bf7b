//! What concerns a monitor as a whole: how soon its guest runs, and what it has in memory.

use super::disk;
use super::runner::Runner;
use super::sample::Sample;
use crate::bench::contender::{Contender, Disk, Kind, MEMORY_MIB};
use crate::bench::process;
use crate::bench::rows::DiskLoad;
use crate::exec::Result;

/// A disk of this kind is there, and has served some requests where memory is measured.
const LOAD: DiskLoad = DiskLoad { write: false, size: 4096, depth: 32, random: true, direct: false, interrupts: false };

pub fn first_byte(runner: &Runner<'_>, contender: &Contender) -> Result<Sample> {
    let mut session = if let Kind::Floor = contender.kind {
        runner.session(&mut runner.floor("first-byte"))?
    } else {
        let disk = Disk { path: &runner.setup.medium.path, direct: false };
        // The first instructions touch few pages, so clearing large ones would be most of what is measured.
        runner.start_on(contender, "bench=none", Some(disk), None, false)?
    };
    let took = session.expect_first_byte(runner.patience())?;
    session.end()?;
    Ok(Sample::of(took.as_secs_f64() * 1e6))
}

pub fn memory(runner: &Runner<'_>, contender: &Contender) -> Result<Sample> {
    let session = if let Kind::Floor = contender.kind {
        let mut session = runner.session(&mut runner.floor("first-byte"))?;
        session.expect_first_byte(runner.patience())?;
        session
    } else {
        let mut session = disk::start(runner, LOAD, contender)?;
        session.expect("end", runner.patience())?;
        session
    };
    let kib = process::kib_beside_guest(session.process(), MEMORY_MIB << 10)?;
    session.end()?;
    Ok(Sample::of(kib))
}
