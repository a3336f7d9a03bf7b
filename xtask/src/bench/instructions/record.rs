//! The record: what each piece needed when somebody last accepted it.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use super::count::Count;
use crate::cargo::workspace;
use crate::exec::{self, Context, Error, Result};

/// How much more than recorded a piece may need.
const MARGIN: f64 = 0.15;
/// Fewer instructions than this are no difference: a piece of a few would be over its margin by the next one.
const LEAST_DIFFERENCE: f64 = 5.0;

pub const HOW_TO_ACCEPT: &str = "if that is worth it, accept it by: cargo xtask bench --instructions --accept";

const HEAD: &str = "\
# Instructions for each operation, as counted by callgrind, without those of the kernel.
# `cargo xtask test` fails if a piece needs 15 % more; `cargo xtask bench --instructions --accept` writes this file.
";

/// The file's content.
#[derive(Debug, Default, PartialEq)]
pub struct Record {
    /// Another compiler makes other code, so numbers of two compilers are not held against each other.
    compiler: String,
    pub counts: Vec<(String, f64)>,
}

/// What the record says of new counts.
#[derive(Debug, PartialEq)]
pub enum Verdict {
    /// With notes for the reader.
    Fine(Vec<String>),
    /// What needs too much, or is not recorded.
    Over(Vec<String>),
}

/// The compiler's version, and what it compiles for.
pub fn compiler() -> Result<String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let text = exec::capture_text(Command::new(rustc).current_dir(workspace()).arg("-vV"))?;
    let version = text.lines().next().unwrap_or_default();
    let host = text.lines().find_map(|line| line.strip_prefix("host: ")).unwrap_or_default();
    Ok(format!("{version} {host}"))
}

impl Record {
    pub fn read() -> Result<Self> {
        let path = path();
        Self::parse(&fs::read_to_string(&path).context(path.display())?)
    }

    pub fn write(&self) -> Result<()> {
        let path = path();
        fs::write(&path, self.to_text()).context(path.display())?;
        println!("accepted: {}", path.display());
        Ok(())
    }

    /// This record with new counts, instead of the old ones if they are `whole`.
    pub fn with(self, counts: &[Count], compiler: String, whole: bool) -> Result<Self> {
        if !whole && compiler != self.compiler {
            let message =
                format!("the record is of another compiler ({}); accept all pieces, without --rows", self.compiler);
            return Err(Error::new(message));
        }
        let mut kept = if whole { Vec::new() } else { self.counts };
        for Count { name, each } in counts {
            let each = match each {
                Ok(each) => *each,
                Err(error) => return Err(Error::new(format!("nothing is accepted, because {name} failed: {error}"))),
            };
            match kept.iter_mut().find(|(known, _)| known == name) {
                Some((_, old)) => *old = each,
                None => kept.push((name.clone(), each)),
            }
        }
        Ok(Self { compiler, counts: kept })
    }

    pub fn judge(&self, counts: &[Count], compiler: &str) -> Verdict {
        let (mut over, mut notes) = (Vec::new(), Vec::new());
        for Count { name, each } in counts {
            match (each, self.counts.iter().find(|(known, _)| known == name)) {
                (Err(error), _) => return Verdict::Over(vec![format!("{name} cannot be counted: {error}")]),
                (Ok(each), None) => over.push(format!("{name} needs {each:.1} instructions, and none are recorded")),
                (Ok(each), Some((_, recorded))) => {
                    let said = format!("{name} needs {each:.1} instructions, recorded are {recorded:.1}");
                    let difference = each - recorded;
                    if difference.abs() > LEAST_DIFFERENCE && difference.abs() > recorded * MARGIN {
                        if difference > 0.0 { over.push(said) } else { notes.push(said) }
                    }
                }
            }
        }
        if compiler != self.compiler {
            notes.append(&mut over);
            if !notes.is_empty() {
                notes.push(format!("instructions were recorded with {}, and this is {compiler}", self.compiler));
            }
        }
        if over.is_empty() { Verdict::Fine(notes) } else { Verdict::Over(over) }
    }

    fn parse(text: &str) -> Result<Self> {
        let mut lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
        let compiler = lines.next().unwrap_or_default().to_string();
        let count = |line: &str| {
            let mut words = line.split_whitespace();
            let parsed = words.next().zip(words.next().and_then(|word| word.parse().ok()));
            let parsed = parsed.map(|(name, each)| (name.to_string(), each));
            parsed.ok_or_else(|| Error::new(format!("{} has a line `{line}`", path().display())))
        };
        Ok(Self { compiler, counts: lines.map(count).collect::<Result<_>>()? })
    }

    fn to_text(&self) -> String {
        let lines = self.counts.iter().map(|(name, each)| format!("{name:<28}{each:>10.1}\n"));
        format!("{HEAD}{}\n{}", self.compiler, lines.collect::<String>())
    }
}

fn path() -> PathBuf {
    workspace().join("benches/instructions.txt")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(counts: &[(&str, f64)]) -> Record {
        let counts = counts.iter().map(|(name, each)| ((*name).into(), *each)).collect();
        Record { compiler: "rustc 1".into(), counts }
    }

    fn counts(counts: &[(&str, f64)]) -> Vec<Count> {
        counts.iter().map(|(name, each)| Count { name: (*name).into(), each: Ok(*each) }).collect()
    }

    #[test]
    fn what_is_written_is_read_back() {
        let record = record(&[("queue/walk", 645.1), ("mmio/read", 7.0)]);
        assert_eq!(Record::parse(&record.to_text()).unwrap(), record);
        assert!(Record::parse("rustc 1\nqueue/walk many\n").is_err());
    }

    #[test]
    fn more_than_the_margin_is_over() {
        let recorded = record(&[("a", 100.0), ("b", 100.0), ("c", 4.0)]);
        let judge = |a, b, c| recorded.judge(&counts(&[("a", a), ("b", b), ("c", c)]), "rustc 1");
        assert_eq!(judge(114.0, 90.0, 8.0), Verdict::Fine(Vec::new()));
        assert!(
            matches!(judge(116.0, 100.0, 4.0), Verdict::Over(lines) if lines.len() == 1 && lines[0].contains("116.0"))
        );
        assert!(matches!(judge(100.0, 50.0, 4.0), Verdict::Fine(notes) if notes[0].contains("50.0")));
        assert!(matches!(recorded.judge(&counts(&[("d", 1.0)]), "rustc 1"), Verdict::Over(_)));
    }

    #[test]
    fn another_compiler_is_only_noted() {
        let recorded = record(&[("a", 100.0)]);
        assert!(
            matches!(recorded.judge(&counts(&[("a", 200.0)]), "rustc 2"), Verdict::Fine(notes) if notes.len() == 2)
        );
        assert_eq!(recorded.judge(&counts(&[("a", 100.0)]), "rustc 2"), Verdict::Fine(Vec::new()));
        assert!(recorded.with(&counts(&[("a", 200.0)]), "rustc 2".into(), false).is_err());
    }

    #[test]
    fn some_counts_can_be_accepted_alone() {
        let new = counts(&[("b", 3.0)]);
        let compiler = || "rustc 1".to_string();
        let old = || record(&[("a", 1.0), ("b", 2.0)]);
        assert_eq!(old().with(&new, compiler(), false).unwrap(), record(&[("a", 1.0), ("b", 3.0)]));
        assert_eq!(old().with(&new, compiler(), true).unwrap(), record(&[("b", 3.0)]));
    }
}
