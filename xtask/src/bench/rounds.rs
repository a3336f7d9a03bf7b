//! The order of the runs: row by row, and in each row round by round, in which everyone has a turn.

use super::boot;
use super::contender::Contender;
use super::result::RowResult;
use super::rows::{Load, Row};
use super::runs::{self, Runner, Sample};
use super::setup::Setup;
use crate::args::BenchOptions;
use crate::exec::Result;

/// Runs everything. The first round warms up and does not count.
pub fn run(rows: &[Row], contenders: &[Contender], setup: &Setup, options: &BenchOptions) -> Result<Vec<RowResult>> {
    let mut runner = Runner::new(setup, options);
    let run = |row: &Row| match row.load {
        Load::Boot => boot::run(row, contenders, setup, options),
        _ => run_row(&mut runner, row, contenders),
    };
    rows.iter().map(run).collect()
}

fn run_row(runner: &mut Runner<'_>, row: &Row, contenders: &[Contender]) -> Result<RowResult> {
    let rounds = runner.options.rounds;
    eprintln!("bench: {}, {rounds} rounds", row.name);
    if let Load::Disk(load) = row.load {
        runner.setup.medium.settle(&runner.setup.floor, load.direct)?;
    }
    let labels = contenders.iter().map(|contender| contender.label.clone());
    let runs = turns(labels, rounds, |number| runs::once(runner, row, &contenders[number]));
    Ok(RowResult { row: row.clone(), runs })
}

/// Everyone's samples by their labels, or why there are none. `once` makes one run of the contender of this number; each has one in
/// each round, and the first round warms up and does not count.
pub fn turns(
    labels: impl Iterator<Item = String>,
    rounds: u32,
    mut once: impl FnMut(usize) -> Result<Sample>,
) -> Vec<(String, Result<Vec<Sample>>)> {
    let mut runs: Vec<(String, Result<Vec<Sample>>)> = labels.map(|label| (label, Ok(Vec::new()))).collect();
    for round in 0..=rounds {
        for (number, (_, samples)) in runs.iter_mut().enumerate() {
            let Ok(kept) = samples else { continue };
            match once(number) {
                Ok(sample) if round > 0 => kept.push(sample),
                Ok(_) => {}
                Err(error) => *samples = Err(error),
            }
        }
    }
    runs
}
