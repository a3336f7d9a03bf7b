//! Counting: a piece is called N times and 2 N times under callgrind, and the difference is that of N calls. So what it takes to
//! start the program and to set the piece up drops out.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::thread;

use crate::cargo;
use crate::exec::{self, Context, Error, Result};
use crate::scratch::Scratch;

/// Calls of a piece that does many operations in each. The first calls, which make room for what they keep, are among the N in
/// both runs.
const LEAST_CALLS: u64 = 100;
/// Operations of a piece at the least.
const LEAST_OPERATIONS: u64 = 500;

/// How many instructions each operation of a piece needs, or why they were not counted.
pub struct Count {
    pub name: String,
    pub each: Result<f64>,
}

/// A piece that the program has.
#[derive(Debug, PartialEq, Eq)]
struct Piece {
    name: String,
    /// Operations in each call.
    operations: u64,
}

/// Counts the program's pieces whose name contains one of `filters`, or all of them.
///
/// # Errors
/// If there is no such piece. A piece that fails does not keep the others from being counted.
pub fn all(program: &Path, filters: &[String]) -> Result<Vec<Count>> {
    let listing = exec::capture_text(Command::new(program).arg("--names"))?;
    let mut pieces = listing.lines().map(parse).collect::<Result<Vec<_>>>()?;
    pieces.retain(|piece| filters.is_empty() || filters.iter().any(|filter| piece.name.contains(filter)));
    if pieces.is_empty() {
        return Err(Error::new(format!(
            "no piece's name contains {}; the pieces are:\n{listing}",
            filters.join(" or ")
        )));
    }
    eprintln!("bench: counting {} pieces", pieces.len());
    let scratch = Scratch::new(&cargo::target_dir().join("xtask"), "count")?;
    Ok(on_all_cpus(&pieces, |piece| Count { name: piece.name.clone(), each: count(program, piece, scratch.path()) }))
}

/// Instructions are the same in whatever company, so there is no need to run one piece after the other.
fn on_all_cpus<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let workers = thread::available_parallelism().map_or(1, usize::from);
    let (todo, done) = (Mutex::new(items.iter().enumerate()), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some((index, item)) = todo.lock().ok().and_then(|mut todo| todo.next()) {
                    let result = work(item);
                    let Ok(mut done) = done.lock() else { return };
                    done.push((index, result));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_default();
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, result)| result).collect()
}

fn count(program: &Path, piece: &Piece, dir: &Path) -> Result<f64> {
    let calls = LEAST_OPERATIONS.div_ceil(piece.operations).max(LEAST_CALLS);
    let (once, twice) = (run(program, piece, calls, dir)?, run(program, piece, 2 * calls, dir)?);
    let difference = twice.checked_sub(once).ok_or_else(|| Error::new("more calls took fewer instructions"))?;
    Ok(difference as f64 / (calls * piece.operations) as f64)
}

/// The instructions of the whole program, of all its threads, without those of the kernel.
fn run(program: &Path, piece: &Piece, calls: u64, dir: &Path) -> Result<u64> {
    let out = dir.join(format!("{}-{calls}", piece.name.replace('/', "-")));
    let mut valgrind = Command::new("valgrind");
    valgrind.arg("--tool=callgrind").arg(format!("--callgrind-out-file={}", out.display()));
    valgrind.arg(program).args(["--count", &piece.name, &calls.to_string()]);
    exec::capture(&mut valgrind)?;
    let text = fs::read_to_string(&out).context(out.display())?;
    total(&text).ok_or_else(|| Error::new(format!("callgrind gave no total for {}", piece.name)))
}

fn total(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("totals: ")).and_then(|total| total.trim().parse().ok())
}

/// `NAME OPERATIONS`
fn parse(line: &str) -> Result<Piece> {
    let parsed = line.split_once(' ').and_then(|(name, operations)| {
        let operations = operations.parse().ok().filter(|operations| *operations > 0)?;
        Some(Piece { name: name.into(), operations })
    });
    parsed.ok_or_else(|| Error::new(format!("the program of the benches names a piece `{line}`")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_is_found_in_callgrinds_file() {
        assert_eq!(total("events: Ir\n\nfn=(1) main\n7 12\n\ntotals: 2757777\n"), Some(2_757_777));
        assert_eq!(total("events: Ir\n"), None);
    }

    #[test]
    fn a_piece_has_a_name_and_operations() {
        assert_eq!(parse("queue/walk 64").unwrap(), Piece { name: "queue/walk".into(), operations: 64 });
        assert!(parse("queue/walk 0").is_err() && parse("queue/walk").is_err());
    }

    #[test]
    fn results_are_in_the_order_of_the_items() {
        let items: Vec<u32> = (0..100).collect();
        assert_eq!(on_all_cpus(&items, |item| item * 2), items.iter().map(|item| item * 2).collect::<Vec<_>>());
    }
}
