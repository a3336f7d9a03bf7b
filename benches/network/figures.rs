//! What is made of several turns of two contenders.

use super::median::median;

/// The line above rows, with what the contenders are called.
pub fn columns(ours: &str, theirs: &str) -> String {
    format!("{:<54} {ours:>11} {theirs:>11} {:>8}", "", "quotient")
}

/// The row of a figure that nobody is compared with.
pub fn alone(name: &str, figure: f64) -> String {
    format!("{name:<54} {figure:>11.2}")
}

/// A quantity of which each contender has a figure a turn.
#[derive(Default)]
pub struct Pair {
    ours: Vec<f64>,
    theirs: Vec<f64>,
}

impl Pair {
    pub fn push(&mut self, ours: f64, theirs: f64) {
        self.ours.push(ours);
        self.theirs.push(theirs);
    }

    /// The medians, the median of the quotients of each turn, and how far those spread.
    pub fn row(&self, name: &str) -> String {
        let quotients: Vec<f64> = self.ours.iter().zip(&self.theirs).map(|(ours, theirs)| ours / theirs).collect();
        let least = quotients.iter().copied().fold(f64::INFINITY, f64::min);
        let most = quotients.iter().copied().fold(0.0, f64::max);
        let (ours, theirs) = (median(self.ours.clone()), median(self.theirs.clone()));
        format!("{name:<54} {ours:>11.2} {theirs:>11.2} {:>8.2}   ({least:.2} to {most:.2})", median(quotients))
    }
}
