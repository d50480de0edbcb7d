//! Which part of a list is asked for.

use crate::query;

/// No page ends behind this item.
pub const MOST_ITEMS: usize = 100_000;

/// What SRS answers to who asks for no number.
const DEFAULT_COUNT: usize = 10;

/// A part of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// How many items come before it.
    pub start: usize,
    /// How many it has at most.
    pub count: usize,
}

impl Page {
    /// Reads `start` and `count` as SRS does since 7.0.103: what is no number is 0, and there are 10 items if nothing is said. Earlier
    /// ones have no pages of less than 10.
    #[must_use]
    pub fn of_query(query: &str) -> Self {
        Self::read(query, DEFAULT_COUNT)
    }

    /// The same of a list that SRS answers whole, as that of vhosts, if nothing is said.
    #[must_use]
    pub fn of_query_or_all(query: &str) -> Self {
        Self::read(query, MOST_ITEMS)
    }

    /// The item behind the last one.
    #[must_use]
    pub const fn end(&self) -> usize {
        self.start.saturating_add(self.count)
    }

    fn read(query: &str, default: usize) -> Self {
        let value = |name| query::value(query, name).filter(|value| !value.is_empty());
        let start = value("start").map_or(0, number).min(MOST_ITEMS);
        let count = value("count").map_or(default, |count| number(count).max(1));
        Self { start, count: count.min(MOST_ITEMS - start) }
    }
}

/// The number that a text begins with.
fn number(text: &str) -> usize {
    let digits = text.bytes().map_while(|byte| char::from(byte).to_digit(10));
    digits.fold(0, |number: usize, digit| number.saturating_mul(10).saturating_add(digit as usize))
}
