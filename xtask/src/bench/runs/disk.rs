//! Requests to a disk.

use super::runner::Runner;
use super::sample::Sample;
use crate::bench::contender::{Contender, Disk, Kind};
use crate::bench::rows::DiskLoad;
use crate::bench::session::Session;
use crate::exec::{self, Error, Result};

pub fn run(runner: &Runner<'_>, load: DiskLoad, contender: &Contender) -> Result<Sample> {
    let direct = load.direct;
    if direct && matches!(contender.kind, Kind::Firecracker(_)) {
        return Err(Error::new("it has no direct transfers"));
    }
    if load.write {
        // Each run begins without what the one before left to be written out.
        runner.setup.medium.settle(&runner.setup.floor, direct)?;
    }
    if let Kind::Floor = contender.kind {
        if load.interrupts {
            return Err(Error::new("the floor has no interrupts"));
        }
        return floor(runner, load);
    }
    let mut session = start(runner, load, contender)?;
    session.expect("begin", runner.patience())?;
    let (told, cpu_us) = runner.end_and_cpu(&mut session)?;
    session.end()?;
    Sample::told(&told, Some(cpu_us))
}

/// A monitor whose guest does this load.
pub fn start(runner: &Runner<'_>, load: DiskLoad, contender: &Contender) -> Result<Session> {
    let (run, interrupts) = (runner.number(), u8::from(load.interrupts));
    let work = format!("bench={} run={run} interrupts={interrupts}", words(load));
    let disk = Disk { path: &runner.setup.medium.path, direct: load.direct };
    runner.start(contender, &work, Some(disk), None)
}

fn floor(runner: &Runner<'_>, load: DiskLoad) -> Result<Sample> {
    let direct = u8::from(load.direct);
    let mut command = runner.floor(&format!("disk {} direct={direct} {}", words(load), runner.times()));
    command.arg(&runner.setup.medium.path);
    Sample::told(&exec::capture_text(&mut command)?, None)
}

/// The load as the guest and the floor are told it.
fn words(load: DiskLoad) -> String {
    let DiskLoad { write, size, depth, random, .. } = load;
    let (kind, order) = (if write { "write" } else { "read" }, if random { "random" } else { "next" });
    format!("{kind} size={size} depth={depth} order={order}")
}
