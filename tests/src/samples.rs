//! What was measured several times, in turns with other things.

use std::fmt;

/// A figure of every turn.
#[derive(Clone, Debug, Default)]
pub(crate) struct Samples(Vec<f64>);

impl Samples {
    pub(crate) fn push(&mut self, sample: f64) {
        self.0.push(sample);
    }

    pub(crate) fn median(&self) -> f64 {
        let mut samples = self.0.clone();
        samples.sort_by(f64::total_cmp);
        samples.get(samples.len() / 2).copied().unwrap_or(f64::NAN)
    }

    pub(crate) fn least(&self) -> f64 {
        self.extremes().0
    }

    /// What every turn makes of its sample and that of the same turn of another.
    pub(crate) fn zip(&self, other: &Self, of: impl Fn(f64, f64) -> f64) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(one, another)| of(*one, *another)).collect())
    }

    /// The median and the extremes, with so many decimal places.
    pub(crate) fn spread(&self, places: usize) -> String {
        let (least, most) = self.extremes();
        format!("{:.places$} [{least:.places$}..{most:.places$}]", self.median())
    }

    /// As a ratio is written.
    pub(crate) fn ratio(&self) -> String {
        self.spread(2)
    }

    fn extremes(&self) -> (f64, f64) {
        let least = self.0.iter().copied().fold(f64::INFINITY, f64::min);
        (least, self.0.iter().copied().fold(f64::NEG_INFINITY, f64::max))
    }
}

impl fmt::Display for Samples {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.spread(0))
    }
}

impl FromIterator<f64> for Samples {
    fn from_iter<I: IntoIterator<Item = f64>>(samples: I) -> Self {
        Self(samples.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_one_and_the_extremes_are_told() {
        let samples: Samples = [3.0, -1.0, 2.0].into_iter().collect();
        assert_eq!((samples.median(), samples.spread(1).as_str()), (2.0, "2.0 [-1.0..3.0]"));
    }

    #[test]
    fn turns_are_compared_with_turns() {
        let (one, other): (Samples, Samples) =
            ([10.0, 20.0, 40.0].into_iter().collect(), [5.0, 20.0, 10.0].into_iter().collect());
        assert_eq!(one.zip(&other, |one, other| one / other).ratio(), "2.00 [1.00..4.00]");
    }

    #[test]
    fn nothing_measured_is_no_figure() {
        assert!(Samples::default().median().is_nan());
    }
}
