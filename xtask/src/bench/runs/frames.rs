//! Frames, sent and received through a TAP that the command made.

use std::process::Command;

use super::runner::Runner;
use super::sample::Sample;
use crate::bench::contender::{Contender, Kind};
use crate::bench::session::Session;
use crate::bench::tap::Tap;
use crate::exec::{self, Error, Result};

/// How many frames one drain of the TAP's queue takes, and how many the one before it that warms up.
const FRAMES: u32 = 30_000;
const WARM_FRAMES: u32 = 5_000;

/// Frames sent: what the guest counted must have come out of the TAP.
pub fn send(runner: &Runner<'_>, size: u32, contender: &Contender) -> Result<Sample> {
    let tap = tap(runner)?;
    if let Kind::Floor = contender.kind {
        let mut command = runner.floor(&format!("send size={size} run_ms={}", runner.options.run_ms));
        return Sample::told(&exec::capture_text(command.arg(tap.name()))?, None);
    }
    let before = tap.frames_from_guest()?;
    let mut session = runner.start(contender, &format!("bench=send size={size}"), None, Some(tap.name()))?;
    session.expect("begin", runner.patience())?;
    let (told, cpu_us) = runner.end_and_cpu(&mut session)?;
    session.end()?;
    let came = tap.frames_from_guest()? - before;
    let sample = Sample::told(&told, Some(cpu_us))?;
    let done = super::sample::fields(&told).get("done").copied().unwrap_or_default();
    if (came as f64) < done {
        return Err(Error::new(format!("the guest sent {done} frames, and {came} came out")));
    }
    Ok(sample)
}

/// Frames received: the TAP's queue is filled while the guest has no buffers, so that no sender takes a CPU meanwhile.
pub fn receive(runner: &Runner<'_>, size: u32, contender: &Contender) -> Result<Sample> {
    let tap = tap(runner)?;
    let work = format!("receive size={size} frames={FRAMES} warm_frames={WARM_FRAMES}");
    let floor = matches!(contender.kind, Kind::Floor);
    let mut session = if floor {
        runner.session(runner.floor(&work).arg(tap.name()))?
    } else {
        runner.start(contender, &format!("bench={work}"), None, Some(tap.name()))?
    };
    session.expect("ready", runner.patience())?;
    fill(runner, size, WARM_FRAMES, tap)?;
    session.send(b'g')?;
    session.expect("ready", runner.patience())?;
    fill(runner, size, FRAMES, tap)?;
    let (told, cpu_us) = drained(runner, &mut session)?;
    session.end()?;
    Sample::told(&told, (!floor).then_some(cpu_us))
}

fn drained(runner: &Runner<'_>, session: &mut Session) -> Result<(String, f64)> {
    session.send(b'g')?;
    runner.end_and_cpu(session)
}

fn fill(runner: &Runner<'_>, size: u32, frames: u32, tap: &Tap) -> Result<()> {
    let mut command: Command = runner.floor(&format!("fill size={size} frames={frames}"));
    exec::capture(command.arg(tap.name())).map(drop)
}

fn tap<'a>(runner: &Runner<'a>) -> Result<&'a Tap> {
    runner.setup.tap.as_ref().ok_or_else(|| Error::new("there is no TAP: only root can make one"))
}
