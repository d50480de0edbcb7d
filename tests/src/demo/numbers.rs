//! Numbers as people read them.

use std::collections::BTreeSet;

/// Thousands apart.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A share of one as percent, never rounded up to 100.
pub(super) fn percent(share: f64) -> String {
    let hundredths = (share * 10_000.0).floor() / 100.0;
    if hundredths >= 100.0 { "100 %".to_owned() } else { format!("{hundredths:.2} %") }
}

/// A share of one as percent with one digit.
pub(super) fn cpu(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// The smallest and the largest, or the one.
pub(super) fn span(values: &[f64]) -> String {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(0.0, f64::max);
    match values {
        [] => "-".to_owned(),
        _ if most - least < 1.0 => format!("{most:.0} ms"),
        _ => format!("{least:.0} to {most:.0} ms"),
    }
}

/// Names of origins.
pub(super) fn joined(origins: &BTreeSet<char>) -> String {
    let names: Vec<_> = origins.iter().map(char::to_string).collect();
    if names.is_empty() { "-".to_owned() } else { names.join(" + ") }
}

/// Bits per second.
pub(super) fn megabits(bits: f64) -> String {
    format!("{:.1} Mbit/s", bits / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_thousands() {
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn a_share_below_one_is_never_shown_as_all() {
        assert_eq!([1.0, 0.999_99, 0.985, 0.0].map(percent), ["100 %", "99.99 %", "98.50 %", "0.00 %"]);
    }

    #[test]
    fn spans_what_differs() {
        assert_eq!(span(&[]), "-");
        assert_eq!(span(&[310.2]), "310 ms");
        assert_eq!(span(&[310.2, 250.0]), "250 to 310 ms");
    }
}
