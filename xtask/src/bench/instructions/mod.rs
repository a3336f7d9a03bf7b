//! `cargo xtask bench --instructions`: how many instructions each piece of the library needs, which a busy host does not change.
//!
//! | Question | Module |
//! |---|---|
//! | Which program has the pieces, of this tree and of a revision? | `program` |
//! | How many instructions does an operation need? | `count` |
//! | How many did it need when somebody last looked? | `record` |

mod count;
mod program;
mod record;

use std::path::Path;

use crate::args::InstructionOptions;
use crate::distro::Distro;
use crate::exec::{Error, Result};
use crate::packages::{self, Purpose};
use count::Count;
use record::{Record, Verdict};

/// Counts the pieces that the options leave; returns the exit status.
pub fn run(options: &InstructionOptions) -> Result<u8> {
    packages::ensure(&Distro::detect()?, &[Purpose::Build, Purpose::Count])?;
    let here = program::of_this_tree()?;
    if options.accept {
        return accept(&here, options).map(|()| 0);
    }
    let Some(revision) = &options.against else {
        let counts = count::all(&here, &options.rows)?;
        print!("{}", table(&counts, &record_or_none()));
        return Ok(0);
    };
    let (there, label) = program::of_revision(revision)?;
    let counts = count::all(&here, &options.rows)?;
    let others = Side { label, counts: count::all(there.path(), &options.rows)? };
    print!("{}", table(&counts, &others));
    Ok(0)
}

/// Counts all pieces, and compares them with the record. Returns notes for the reader.
///
/// # Errors
/// If a piece needs more than the record allows, and the compiler is the same.
pub fn check() -> Result<Vec<String>> {
    let counts = count::all(&program::of_this_tree()?, &[])?;
    print!("{}", table(&counts, &record_or_none()));
    match Record::read()?.judge(&counts, &record::compiler()?) {
        Verdict::Fine(notes) => Ok(notes),
        Verdict::Over(lines) => Err(Error::new(format!("{}; {}", lines.join("; "), record::HOW_TO_ACCEPT))),
    }
}

fn accept(here: &Path, options: &InstructionOptions) -> Result<()> {
    let counts = count::all(here, &options.rows)?;
    print!("{}", table(&counts, &record_or_none()));
    // A record that cannot be read is replaced as a whole.
    let old = Record::read().unwrap_or_default();
    old.with(&counts, record::compiler()?, options.rows.is_empty())?.write()
}

/// What this tree is compared with.
struct Side {
    label: String,
    counts: Vec<Count>,
}

fn record_or_none() -> Side {
    let record = Record::read().unwrap_or_default();
    let counts = record.counts.into_iter().map(|(name, each)| Count { name, each: Ok(each) }).collect();
    Side { label: "recorded".into(), counts }
}

/// One piece a line; the last column is the quotient of both numbers, which is below 1 if this tree needs less.
fn table(counts: &[Count], other: &Side) -> String {
    let mut text =
        format!("{:<28}{:>14}{:>14}{:>12}\n", "instructions/operation", "this tree", other.label, "this/other");
    for Count { name, each } in counts {
        let known = other.counts.iter().find(|other| other.name == *name).and_then(|other| other.each.as_ref().ok());
        let known_text = known.map_or_else(|| "-".into(), |known| format!("{known:.1}"));
        text += &match each {
            Ok(each) => {
                let ratio = known.map_or_else(|| "-".into(), |known| format!("{:.3}", each / known));
                format!("{name:<28}{each:>14.1}{known_text:>14}{ratio:>12}\n")
            }
            Err(error) => format!("{name:<28}not counted: {}\n", error.to_string().lines().next().unwrap_or_default()),
        };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(name: &str, each: f64) -> Count {
        Count { name: name.into(), each: Ok(each) }
    }

    #[test]
    fn the_table_has_both_numbers_and_their_quotient() {
        let lost = Count { name: "c".into(), each: Err(Error::new("it panicked\nhere")) };
        let other = Side { label: "old".into(), counts: vec![count("a", 200.0)] };
        let text = table(&[count("a", 150.0), count("b", 1.0), lost], &other);
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[1], ["a", "150.0", "200.0", "0.750"]);
        assert_eq!(lines[2], ["b", "1.0", "-", "-"]);
        assert_eq!(lines[3].join(" "), "c not counted: it panicked");
    }
}
