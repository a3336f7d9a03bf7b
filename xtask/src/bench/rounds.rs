//! The order of the runs: row by row, and in each row round by round, in which everyone has a turn.

use std::collections::HashMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::Setup;
use super::contender::{Contender, Disk, Kind, Machine};
use super::process;
use super::rows::{DiskLoad, Load, Row};
use super::session::Session;
use crate::args::BenchOptions;
use crate::exec::{self, Error, Result};

/// Added to the time that the guest takes by its own clock.
const PATIENCE: Duration = Duration::from_secs(20);

/// What came out of one run.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    pub figure: f64,
    /// Of the host, beside the vCPU, for each request.
    pub cpu_us: Option<f64>,
    pub kicks: Option<f64>,
}

/// One row, and everyone's samples, or why there are none.
pub struct RowResult {
    pub row: Row,
    pub runs: Vec<(String, Result<Vec<Sample>>)>,
}

/// Runs everything. The first round warms up and does not count.
pub fn run(rows: &[Row], contenders: &[Contender], setup: &Setup, options: &BenchOptions) -> Result<Vec<RowResult>> {
    let mut results = Vec::new();
    let mut runner = Runner { setup, options, number: 0 };
    for row in rows {
        eprintln!("bench: {}, {} rounds", row.name, options.rounds);
        let mut runs: Vec<(String, Result<Vec<Sample>>)> =
            contenders.iter().map(|contender| (contender.label.clone(), Ok(Vec::new()))).collect();
        runner.settle(row)?;
        for round in 0..=options.rounds {
            for (contender, (_, samples)) in contenders.iter().zip(&mut runs) {
                let Ok(kept) = samples else { continue };
                match runner.once(row, contender) {
                    Ok(Some(sample)) if round > 0 => kept.push(sample),
                    Ok(_) => {}
                    Err(error) => *samples = Err(error),
                }
            }
        }
        results.push(RowResult { row: row.clone(), runs });
    }
    Ok(results)
}

struct Runner<'a> {
    setup: &'a Setup,
    options: &'a BenchOptions,
    /// Of the run.
    number: u32,
}

impl Runner<'_> {
    fn settle(&self, row: &Row) -> Result<()> {
        match row.load {
            Load::Disk(load) => self.setup.medium.settle(&self.setup.floor, load.direct),
        }
    }

    /// One run; `None` if the contender has no part in this row.
    fn once(&mut self, row: &Row, contender: &Contender) -> Result<Option<Sample>> {
        // The guest has 16 bits for it.
        self.number = self.number % 0xffff + 1;
        match row.load {
            Load::Disk(load) => match &contender.kind {
                Kind::Floor(floor) => self.disk_floor(load, floor).map(Some),
                _ => self.disk(load, contender).map(Some),
            },
        }
    }

    fn disk(&self, load: DiskLoad, contender: &Contender) -> Result<Sample> {
        let DiskLoad { size, depth, .. } = load;
        let (kind, order) = words(load);
        let work = format!("bench={kind} size={size} depth={depth} order={order} run={}", self.number);
        let disk = Disk { path: &self.setup.medium.path, direct: load.direct };
        let mut session = self.start(contender, &work, Some(disk))?;
        session.expect("begin", PATIENCE)?;
        let before = process::cpu_us_beside_vcpus(session.process())?;
        let told = session.expect("end", PATIENCE + Duration::from_millis(self.options.run_ms.into()))?;
        let after = process::cpu_us_beside_vcpus(session.process())?;
        let told = fields(&told);
        session.end()?;
        if told.get("wrong").copied() != Some(0.0) {
            return Err(Error::new(format!("wrong data or a bad status in {:?} requests", told.get("wrong"))));
        }
        sample(&told, after - before)
    }

    fn disk_floor(&self, load: DiskLoad, floor: &Path) -> Result<Sample> {
        let (kind, order) = words(load);
        let DiskLoad { size, depth, direct, .. } = load;
        let (direct, run_ms) = (u8::from(direct), self.options.run_ms);
        let words = format!("disk {kind} size={size} depth={depth} order={order} direct={direct} run_ms={run_ms}");
        let mut command = Command::new(floor);
        command.args(words.split(' ')).arg(&self.setup.medium.path);
        let told = fields(&exec::capture_text(&mut command)?);
        sample(&told, told.get("cpu_us").copied().unwrap_or(0.0))
    }

    fn start(&self, contender: &Contender, work: &str, disk: Option<Disk<'_>>) -> Result<Session> {
        let (setup, run_ms) = (self.setup, self.options.run_ms);
        let warm_ms = run_ms / 5;
        let cmdline = format!("{work} tsc_khz={} warm_ms={warm_ms} run_ms={run_ms}", setup.tsc_khz);
        let scratch = setup.scratch.path();
        let machine = Machine { guest: &setup.guest, cmdline, disk, scratch };
        let command = contender.command(&machine)?;
        let mut command = command.ok_or_else(|| Error::new(format!("{} is no monitor", contender.label)))?;
        Session::start(&mut command, scratch.join("errors"))
    }
}

fn words(load: DiskLoad) -> (&'static str, &'static str) {
    (if load.write { "write" } else { "read" }, if load.random { "random" } else { "next" })
}

/// The `key=number` of a line.
fn fields(line: &str) -> HashMap<String, f64> {
    let pairs = line.split_whitespace().filter_map(|word| word.split_once('='));
    pairs.filter_map(|(key, value)| Some((key.to_string(), value.parse().ok()?))).collect()
}

fn sample(told: &HashMap<String, f64>, cpu_us: f64) -> Result<Sample> {
    match (told.get("done"), told.get("us")) {
        (Some(done), Some(us)) if *done > 0.0 && *us > 0.0 => Ok(Sample {
            figure: done * 1e6 / us,
            cpu_us: Some(cpu_us / done),
            kicks: told.get("kicks").map(|kicks| kicks / done),
        }),
        _ => Err(Error::new("nothing was done")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_line_becomes_a_rate() {
        let sample = sample(&fields("end done=500 us=250000 kicks=50 wrong=0"), 1000.0).unwrap();
        assert!((sample.figure - 2000.0).abs() < 1e-6);
        assert_eq!((sample.cpu_us, sample.kicks), (Some(2.0), Some(0.1)));
        assert!(super::sample(&fields("end done=0 us=1"), 0.0).is_err());
    }
}
