//! The pieces of the library, each measured alone: by criterion (`cargo bench --bench pieces`), or in instructions, which a busy machine does
//! not change (`cargo xtask bench --instructions`).
//!
//! ```text
//! pieces --names               one piece a line, and how many operations a call of it does
//! pieces --count NAME CALLS    make the piece and call it so often, without criterion
//! pieces ...                   criterion's own arguments
//! ```
#![forbid(unsafe_code)]

mod block;
mod event;
mod interrupt;
mod mmio;
mod net;
mod offer;
mod piece;
mod queue;

use std::io::{self, Write};
use std::process::ExitCode;

use criterion::{Criterion, Throughput};
use piece::Piece;

fn main() -> ExitCode {
    let pieces = [queue::PIECES, block::PIECES, net::PIECES, mmio::PIECES, interrupt::PIECES, event::PIECES].concat();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments[..] {
        ["--names"] => names(&pieces),
        ["--count", name, calls] => count(&pieces, name, calls),
        _ => {
            criterion(&pieces);
            Ok(())
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "pieces: {error}");
            ExitCode::FAILURE
        }
    }
}

fn names(pieces: &[Piece]) -> io::Result<()> {
    pieces.iter().try_for_each(|piece| writeln!(io::stdout(), "{}/{} {}", piece.room, piece.name, piece.operations))
}

/// Whatever is not of the calls is the same for any number of them, and drops out of the difference.
fn count(pieces: &[Piece], name: &str, calls: &str) -> io::Result<()> {
    let found = pieces.iter().find(|piece| name.split_once('/') == Some((piece.room, piece.name)));
    let piece = found.ok_or_else(|| io::Error::other(format!("no piece is called `{name}`")))?;
    let calls: u64 = calls.parse().map_err(|_| io::Error::other(format!("`{calls}` is no number of calls")))?;
    let mut call = (piece.make)();
    (0..calls).for_each(|_| call());
    Ok(())
}

fn criterion(pieces: &[Piece]) {
    let mut criterion = Criterion::default().configure_from_args();
    for piece in pieces {
        let mut group = criterion.benchmark_group(piece.room);
        group.throughput(Throughput::Elements(piece.operations));
        group.bench_function(piece.name, |bencher| bencher.iter((piece.make)()));
        group.finish();
    }
    criterion.final_summary();
}
