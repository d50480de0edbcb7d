//! What a player of a stream over TCP got, judged by the times of its pictures.

use std::time::{Duration, Instant};

/// Between two pictures of the clip, in milliseconds.
const STEP: f64 = 40.0;

/// The pictures of one player so far.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Timeline {
    /// Pictures that came.
    pub(super) pictures: u64,
    /// Pictures that would have been between those that came.
    pub(super) missing: u64,
    /// Pictures that came again or out of order.
    pub(super) repeated: u64,
    /// From the player's start to the first picture.
    pub(super) first: Option<Duration>,
    last: Option<f64>,
}

impl Timeline {
    /// Takes a picture of this time, in milliseconds.
    pub(super) fn take(&mut self, at: f64, started: Instant) {
        self.first.get_or_insert_with(|| started.elapsed());
        self.pictures += 1;
        let steps = self.last.map_or(1.0, |last| ((at - last) / STEP).round());
        if steps < 1.0 {
            self.repeated += 1;
        } else {
            self.missing += steps as u64 - 1;
        }
        self.last = Some(at);
    }
}

/// How many pictures lie between two times, both included.
pub(super) fn pictures_between(first_ms: u32, last_ms: u32) -> u64 {
    (f64::from(last_ms.wrapping_sub(first_ms)) / STEP).round() as u64 + 1
}

/// How many pictures come in this time.
pub(super) fn pictures_in(time: Duration) -> u64 {
    (time.as_secs_f64() * 1000.0 / STEP) as u64
}

/// Reads FFmpeg's `framecrc`: a line for each picture, behind the unit of its times.
#[derive(Debug, Default)]
pub(super) struct FrameLines {
    /// Milliseconds.
    unit: Option<f64>,
}

impl FrameLines {
    /// The time of decoding that a line tells, in milliseconds.
    pub(super) fn hear(&mut self, line: &str) -> Option<f64> {
        if let Some(unit) = line.strip_prefix("#tb 0:") {
            let (numerator, denominator) = unit.trim().split_once('/')?;
            self.unit = Some(numerator.parse::<f64>().ok()? * 1000.0 / denominator.parse::<f64>().ok()?);
        }
        let mut columns = line.split(',').map(str::trim);
        let is_picture = columns.next() == Some("0");
        let decoded: f64 = columns.next().filter(|_| is_picture)?.parse().ok()?;
        Some(decoded * self.unit?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(times: &[f64]) -> [u64; 3] {
        let mut timeline = Timeline::default();
        times.iter().for_each(|at| timeline.take(*at, Instant::now()));
        [timeline.pictures, timeline.missing, timeline.repeated]
    }

    #[test]
    fn gaps_and_repetitions_are_counted_and_where_a_player_begins_does_not_matter() {
        assert_eq!(of(&[5000.0, 5040.0, 5080.0]), [3, 0, 0]);
        assert_eq!(of(&[5000.0, 5040.0, 5161.0, 5200.0]), [4, 2, 0]);
        assert_eq!(of(&[5000.0, 5000.0, 5040.0, 4000.0]), [4, 0, 2]);
    }

    #[test]
    fn a_span_holds_both_ends() {
        assert_eq!(pictures_between(40, 40), 1);
        assert_eq!(pictures_between(u32::MAX - 39, 40), 3);
    }

    #[test]
    fn lines_of_ffmpeg_are_read_in_their_unit() {
        let mut lines = FrameLines::default();
        let heard = |lines: &mut FrameLines, line| lines.hear(line);
        assert_eq!(heard(&mut lines, "0,          0,          0,     3600,    11938, 0x9b4fb1a6"), None);
        assert_eq!(heard(&mut lines, "#tb 0: 1/90000"), None);
        assert_eq!(heard(&mut lines, "#dimensions 0: 320x180"), None);
        assert_eq!(
            heard(&mut lines, "0,       3600,       7200,     3600,     903, 0x0b6c2f4e, F=0x0"),
            Some(40.0)
        );
        assert_eq!(heard(&mut lines, "1,       3600,       7200,     3600,     903, 0x0b6c2f4e"), None);
    }
}
