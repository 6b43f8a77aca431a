//! The middle of a few figures, and how far they lie apart.

/// Median of `figures`; the mean of the middle two where their number is even, `NaN` of none.
#[must_use]
pub fn median(figures: impl IntoIterator<Item = f64>) -> f64 {
    let sorted = sorted(figures);
    let upper = sorted.len() / 2;
    let lower = sorted.len().saturating_sub(1) / 2;
    match (sorted.get(lower), sorted.get(upper)) {
        (Some(lower), Some(upper)) => f64::midpoint(*lower, *upper),
        _ => f64::NAN,
    }
}

/// The least and the greatest of `figures`; `NaN` of none.
#[must_use]
pub fn range(figures: impl IntoIterator<Item = f64>) -> (f64, f64) {
    let sorted = sorted(figures);
    match (sorted.first(), sorted.last()) {
        (Some(least), Some(greatest)) => (*least, *greatest),
        _ => (f64::NAN, f64::NAN),
    }
}

fn sorted(figures: impl IntoIterator<Item = f64>) -> Vec<f64> {
    let mut figures: Vec<f64> = figures.into_iter().collect();
    figures.sort_by(f64::total_cmp);
    figures
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_does_not_move_with_the_ends() {
        assert_eq!(median([9.0, 1.0, 2.0]).to_bits(), 2.0_f64.to_bits());
        assert_eq!(median([4.0, 1.0, 2.0, 1000.0]).to_bits(), 3.0_f64.to_bits());
        assert_eq!(median([7.0]).to_bits(), 7.0_f64.to_bits());
        assert!(median([]).is_nan());
        assert_eq!(range([9.0, 1.0, 2.0]), (1.0, 9.0));
    }
}
