//! For how long media stopped, as a table, and what was promised.

use std::time::Duration;

use super::super::table::layout;
use super::part::Kind;

/// Players of one kind when something was killed.
#[derive(Debug, Clone)]
pub(super) struct Row {
    killed: &'static str,
    kind: Kind,
    /// For how long media may stop at those whom it concerns. Nobody else may notice anything.
    limit: Duration,
    pub(super) concerned: Group,
    pub(super) others: Group,
}

/// Players to whom the same happened.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Group {
    players: usize,
    /// The longest of them.
    stopped: Duration,
    missing: u64,
}

impl Group {
    pub(super) fn add(&mut self, stopped: Duration, missing: u64) {
        self.players += 1;
        self.stopped = self.stopped.max(stopped);
        self.missing += missing;
    }

    fn is_unharmed(self) -> bool {
        self.stopped.is_zero() && self.missing == 0
    }

    fn shown(self) -> [String; 2] {
        let stopped = if self.players == 0 { "-".to_owned() } else { seconds(self.stopped) };
        [self.players.to_string(), stopped]
    }
}

impl Row {
    pub(super) fn new(killed: &'static str, kind: Kind, limit: Duration) -> Self {
        Self { killed, kind, limit, concerned: Group::default(), others: Group::default() }
    }

    /// What was promised and does not hold.
    pub(super) fn broken(&self) -> Vec<String> {
        let Self { killed, kind, limit, concerned, others } = self;
        let what = format!("without {killed}: {}", kind.name());
        let mut broken = Vec::new();
        if concerned.stopped > *limit {
            broken.push(format!("{what} stopped for {}", seconds(concerned.stopped)));
        }
        if limit.is_zero() && concerned.missing > 0 {
            broken.push(format!("{what}: {} packets or pictures missing", concerned.missing));
        }
        if concerned.players == 0 {
            broken.push(format!("{what}: nobody played"));
        }
        if !others.is_unharmed() {
            let Group { stopped, missing, .. } = others;
            let stopped = seconds(*stopped);
            broken
                .push(format!("{what}: {stopped} and {missing} missing at players whom it does not concern"));
        }
        broken
    }
}

/// All rows, for the terminal.
pub(super) fn table(rows: &[Row]) -> String {
    let titles = ["killed", "kind", "players", "media stopped", "promised", "others", "media stopped"];
    let head = titles.map(str::to_owned);
    let body = rows.iter().map(|row| {
        let [players, stopped] = row.concerned.shown();
        let [others, undisturbed] = row.others.shown();
        let limit = seconds(row.limit);
        [row.killed.to_owned(), row.kind.name().to_owned(), players, stopped, limit, others, undisturbed]
    });
    let rows: Vec<_> = std::iter::once(head).chain(body).collect();
    format!("\n{}\n", layout(&rows, &[0, 1]))
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(concerned: Group, others: Group) -> Row {
        Row { concerned, others, ..Row::new("a proxy", Kind::WebRtc, Duration::from_secs(5)) }
    }

    fn group(stopped: u64, missing: u64) -> Group {
        Group { players: 1, stopped: Duration::from_millis(stopped), missing }
    }

    #[test]
    fn media_may_stop_for_as_long_as_promised_where_it_concerns_somebody() {
        assert_eq!(row(group(5000, 9), group(0, 0)).broken(), [""; 0]);
        let late = row(group(5001, 9), group(0, 0)).broken();
        assert_eq!(late, ["without a proxy: WebRTC stopped for 5.0 s"]);
        assert_eq!(row(Group::default(), group(0, 0)).broken(), ["without a proxy: WebRTC: nobody played"]);
    }

    #[test]
    fn nobody_else_notices_anything() {
        for others in [group(600, 0), group(0, 1)] {
            assert_eq!(row(group(0, 0), others).broken().len(), 1);
        }
    }

    #[test]
    fn nothing_is_missing_where_media_may_not_stop() {
        let without_redis = |concerned| Row { limit: Duration::ZERO, ..row(concerned, Group::default()) };
        assert_eq!(without_redis(group(0, 0)).broken(), [""; 0]);
        assert_eq!(without_redis(group(0, 2)).broken().len(), 1);
        assert_eq!(without_redis(group(600, 0)).broken().len(), 1);
    }

    #[test]
    fn the_longest_stop_of_a_group_counts() {
        let mut all = Group::default();
        for (ms, missing) in [(0, 1), (700, 0), (600, 2)] {
            all.add(Duration::from_millis(ms), missing);
        }
        assert_eq!(all.shown(), ["3", "0.7 s"]);
        assert_eq!(all.missing, 3);
    }
}
