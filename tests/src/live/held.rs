//! What the kernel holds for TCP connections, as `ss` shows it.

use anyhow::{Context as _, Result, ensure};

use crate::netns::Namespace;

/// What is held for a connection, or for several, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Received and not read.
    pub unread: u64,
    /// Written and not acknowledged.
    pub unsent: u64,
    /// Memory of both queues, with what packets take beside their bytes.
    pub memory: u64,
    /// What memory may become while nobody reads.
    pub most_unread: u64,
    /// Bytes that the other end has acknowledged since the beginning.
    pub acknowledged: u64,
    /// Bytes received since the beginning.
    pub received: u64,
}

impl Held {
    /// Of the established connections in `namespace` that a filter of `ss` describes.
    ///
    /// # Errors
    /// When `ss` fails, or shows none.
    pub fn by(namespace: &Namespace, filter: &str) -> Result<Self> {
        let shown = namespace.run("ss", &["-tinmOH", "state", "established", filter])?;
        let lines = shown.lines().map(|line| Self::of_line(line).with_context(|| line.to_owned()));
        let held = lines.collect::<Result<Vec<_>>>()?;
        ensure!(!held.is_empty(), "no connection has {filter}");
        Ok(held.into_iter().fold(Self::default(), Self::plus))
    }

    fn of_line(line: &str) -> Option<Self> {
        let mut columns = line.split_whitespace();
        let [unread, unsent] = [columns.next()?.parse().ok()?, columns.next()?.parse().ok()?];
        let (_, memory) = line.split_once("skmem:(")?;
        let (memory, _) = memory.split_once(')')?;
        // Queues, what is allocated in advance, and the backlog.
        let parts = ["r", "w", "f", "bl"].map(|name| memory.split(',').find_map(|part| figure(part, name)));
        let most_unread = memory.split(',').find_map(|part| figure(part, "rb"))?;
        let memory = parts.into_iter().sum::<Option<u64>>()?;
        // Absent as long as it is nothing.
        let total = |name| line.split_whitespace().find_map(|word| figure(word, name)).unwrap_or_default();
        let (acknowledged, received) = (total("bytes_acked:"), total("bytes_received:"));
        Some(Self { unread, unsent, memory, most_unread, acknowledged, received })
    }

    fn plus(self, other: Self) -> Self {
        Self {
            unread: self.unread + other.unread,
            unsent: self.unsent + other.unsent,
            memory: self.memory + other.memory,
            most_unread: self.most_unread + other.most_unread,
            acknowledged: self.acknowledged + other.acknowledged,
            received: self.received + other.received,
        }
    }
}

/// The figure in `name` followed by digits and nothing else.
fn figure(word: &str, name: &str) -> Option<u64> {
    word.strip_prefix(name)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "8192 262144 10.72.1.1:18080 10.72.1.2:40000 skmem:(r11,rb131072,t0,tb4194304,f3,w262500,o0,\
                        bl7,d2) cubic wscale:10,4 rto:200 bytes_sent:900 bytes_acked:901 bytes_received:42 rcv_space:9";

    #[test]
    fn queues_and_memory_are_read() {
        let held = Held {
            unread: 8192,
            unsent: 262_144,
            memory: 262_521,
            most_unread: 131_072,
            acknowledged: 901,
            received: 42,
        };
        assert_eq!(Held::of_line(LINE), Some(held));
        assert_eq!(held.plus(held).memory, 525_042);
    }

    #[test]
    fn counts_that_are_not_there_are_nothing() {
        let (line, _) = LINE.split_once(" bytes_sent").unwrap();
        assert_eq!(Held::of_line(line).map(|held| (held.acknowledged, held.received)), Some((0, 0)));
    }

    #[test]
    fn what_is_no_connection_is_nothing() {
        assert_eq!(Held::of_line("Recv-Q Send-Q Local Address:Port"), None);
    }
}
