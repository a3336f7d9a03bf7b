//! Figures that a guest measures: each a line, of which the last word is a number.

use std::io::Write;

/// The median of what stands behind `begin` in the lines that a guest printed.
pub fn median(text: &str, begin: &str) -> f64 {
    let mut all: Vec<f64> = text.lines().filter_map(|line| line.strip_prefix(begin)?.trim().parse().ok()).collect();
    assert!(!all.is_empty(), "no {begin:?} in {text}");
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

/// Shows a figure, past what catches the output of tests that pass.
pub fn show(figure: &str) {
    writeln!(std::io::stderr(), "figure: {figure}").expect("somebody reads it");
}
