//! How the cost of a request grows with what else is on its I/O thread: disks, network cards, queues, VMs.
//!
//! `cargo bench --bench scale -- [FOLDER]` measures, prints a table, and draws it into `FOLDER/scale-*.svg`, if one is named. Drivers
//! run on the calling thread, so that no guest's speed is part of it: the I/O thread is what is measured.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that prints what it measures")]

#[path = "../cpu.rs"]
mod cpu;
mod load;
mod plot;

use std::path::PathBuf;
use std::process::ExitCode;

use load::{Load, Measured, measure};
use plot::{Line, Plot};

/// How many there are of whatever grows.
const COUNTS: [usize; 6] = [1, 2, 4, 8, 16, 32];
/// A disk has no more queues.
const MOST_QUEUES: usize = 16;
/// Each point is measured so often, in turn with the others.
const ROUNDS: usize = 5;

/// What grows, and what that makes of the load.
struct Case {
    name: &'static str,
    title: &'static str,
    load: fn(usize) -> Load,
    most: usize,
}

const CASES: [Case; 5] = [
    Case {
        name: "idle-disks",
        title: "one busy disk, others idle on the same I/O thread",
        load: |count| Load { idle_disks: count - 1, ..Load::one() },
        most: 32,
    },
    Case {
        name: "idle-nics",
        title: "one busy disk, network cards idle on the same I/O thread",
        load: |count| Load { idle_nics: count, ..Load::one() },
        most: 32,
    },
    Case {
        name: "queues",
        title: "one busy queue of a disk with several",
        load: |count| Load { queues: count, ..Load::one() },
        most: MOST_QUEUES,
    },
    Case {
        name: "busy-disks",
        title: "disks of one VM, all busy on the same I/O thread",
        load: |count| Load { busy: count, ..Load::one() },
        most: 32,
    },
    Case {
        name: "busy-vms",
        title: "VMs with a disk each, all busy on the same I/O thread",
        load: |count| Load { busy: count, apart: true, ..Load::one() },
        most: 32,
    },
];

fn main() -> ExitCode {
    // Cargo adds its own flags.
    let folder = std::env::args().skip(1).find(|argument| !argument.starts_with("--")).map(PathBuf::from);
    for case in &CASES {
        let points = points(case);
        print(case, &points);
        if let Some(folder) = &folder
            && let Err(error) = plot(case, &points).write(&folder.join(format!("scale-{}.svg", case.name)))
        {
            eprintln!("scale: {error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// The median of each count's rounds. The counts take turns, so that a change of the host's load meets all of them.
fn points(case: &Case) -> Vec<(usize, Measured)> {
    let counts: Vec<usize> = COUNTS.into_iter().filter(|count| *count <= case.most).collect();
    let mut rounds: Vec<Vec<Measured>> = counts.iter().map(|_| Vec::new()).collect();
    for _ in 0..ROUNDS {
        for (count, measured) in counts.iter().zip(&mut rounds) {
            measured.push(measure(&(case.load)(*count)));
        }
    }
    counts.into_iter().zip(rounds.into_iter().map(median)).collect()
}

fn median(mut rounds: Vec<Measured>) -> Measured {
    rounds.sort_by(|a, b| a.nanos.total_cmp(&b.nanos));
    rounds.swap_remove(rounds.len() / 2)
}

fn print(case: &Case, points: &[(usize, Measured)]) {
    println!("{} ({})", case.name, case.title);
    println!("{:>8} {:>14} {:>14}", "count", "ns/request", "CPU ns/request");
    for (count, Measured { nanos, cpu_nanos }) in points {
        println!("{count:>8} {nanos:>14.0} {cpu_nanos:>14.0}");
    }
    println!();
}

fn plot(case: &Case, points: &[(usize, Measured)]) -> Plot {
    let line = |label: &str, value: fn(&Measured) -> f64| Line {
        label: label.to_owned(),
        points: points.iter().map(|(count, measured)| (*count as f64, value(measured))).collect(),
    };
    let lines =
        vec![line("time a request", |m| m.nanos), line("CPU time of the I/O thread a request", |m| m.cpu_nanos)];
    Plot { title: case.title.to_owned(), lines }
}
