//! What is made of a row's figures.

/// The middle one; for an even number the mean of the middle two. 0 of nothing.
pub fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => 0.0,
        len if len % 2 == 1 => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

/// The smallest and the largest.
pub fn range(figures: &[f64]) -> (f64, f64) {
    figures.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), figure| (low.min(*figure), high.max(*figure)))
}

/// How far the smallest and the largest are apart, as a part of the median.
pub fn spread(figures: &[f64]) -> f64 {
    let (low, high) = range(figures);
    let middle = median(figures);
    if middle == 0.0 || figures.is_empty() { 0.0 } else { (high - low) / middle }
}

/// The median of the quotients of the same round: what drifts over the rounds drops out.
pub fn ratio(ours: &[f64], theirs: &[f64]) -> Option<f64> {
    let quotients: Vec<f64> = ours.iter().zip(theirs).filter(|(_, b)| **b != 0.0).map(|(a, b)| a / b).collect();
    (!quotients.is_empty()).then(|| median(&quotients))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]).to_bits(), 2.0_f64.to_bits());
        assert_eq!(median(&[4.0, 1.0]).to_bits(), 2.5_f64.to_bits());
        assert_eq!(median(&[]).to_bits(), 0.0_f64.to_bits());
    }

    #[test]
    fn the_spread_is_a_part_of_the_median() {
        assert!((spread(&[90.0, 100.0, 110.0]) - 0.2).abs() < 1e-9);
        assert_eq!(range(&[2.0, 1.0]), (1.0, 2.0));
    }

    #[test]
    fn a_ratio_pairs_the_rounds() {
        assert_eq!(ratio(&[2.0, 20.0, 6.0], &[1.0, 10.0, 2.0]), Some(2.0));
        assert_eq!(ratio(&[1.0], &[]), None);
    }
}
