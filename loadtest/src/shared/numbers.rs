//! Samples: median, spread, ratios, and how they are written.

use serde::Serialize;

/// Median, minimum and maximum.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
}

impl Spread {
    /// Returns nothing if there are no samples.
    pub(crate) fn of(samples: &[f64]) -> Option<Self> {
        let low = samples.iter().copied().reduce(f64::min)?;
        let high = samples.iter().copied().reduce(f64::max)?;
        Some(Self { median: median(samples), low, high })
    }
}

/// Returns the median; not a number if there are no samples.
pub(crate) fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |index: usize| sorted.get(index).copied().unwrap_or(f64::NAN);
    let half = sorted.len() / 2;
    if sorted.len() % 2 == 1 {
        at(half)
    } else {
        f64::midpoint(at(half.saturating_sub(1)), at(half))
    }
}

/// Divides the samples of the same round, where both exist.
pub(crate) fn ratios(samples: &[Option<f64>], references: &[Option<f64>]) -> Vec<f64> {
    let pairs = samples.iter().zip(references);
    pairs
        .filter_map(|(sample, reference)| Some((*sample)? / (*reference)?))
        .filter(|ratio| ratio.is_finite())
        .collect()
}

/// Writes three significant digits, or whole numbers with separators.
pub(crate) fn number(value: f64) -> String {
    if value.abs() < 10.0 {
        return format!("{value:.2}");
    }
    if value.abs() < 1000.0 {
        return format!("{value:.1}");
    }
    let digits = format!("{value:.0}");
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0
            && digit.is_ascii_digit()
            && (digits.len() - index) % 3 == 0
            && !grouped.ends_with('-')
        {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_and_the_spread_the_ends() {
        assert!((median(&[5.0, 1.0, 3.0]) - 3.0).abs() < 1e-9);
        assert!((median(&[4.0, 1.0, 3.0, 2.0]) - 2.5).abs() < 1e-9);
        assert_eq!(Spread::of(&[2.0, 9.0, 4.0]), Some(Spread { median: 4.0, low: 2.0, high: 9.0 }));
        assert_eq!(Spread::of(&[]), None);
    }

    #[test]
    fn numbers_are_short_and_grouped() {
        let shown = [0.456, 45.67, 1_234.5, 1_234_567.0, -1_234.0, -123_456.0].map(number);
        assert_eq!(shown, ["0.46", "45.7", "1,234", "1,234,567", "-1,234", "-123,456"]);
    }

    #[test]
    fn only_samples_of_the_same_round_are_divided() {
        let other = [Some(4.0), None, Some(4.0), Some(1.0), Some(1.0)];
        let floor = [Some(2.0), Some(1.0), Some(4.0), Some(0.0)];
        assert_eq!(ratios(&other, &floor), [2.0, 1.0]);
    }
}
