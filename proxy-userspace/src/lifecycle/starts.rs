//! Tells a crash loop from a restart: how many processes in a row died within seconds of their start.
//!
//! What killed them may be what they adopted or where they attached. In a crash loop a process therefore adopts no
//! session and touches no interface; what the kernel forwards goes on without an owner.

use std::{
    fs, io,
    path::PathBuf,
    time::{Duration, SystemTime},
};

/// A process that lives for this long has started well.
pub const SETTLED: Duration = Duration::from_secs(10);
/// So many early deaths in a row are a crash loop.
const LOOP: u32 = 3;
/// Deaths longer ago than this have nothing to do with now: a supervisor backs off for minutes at most.
const FORGOTTEN: Duration = Duration::from_secs(600);

/// The count of starts without a good end, in a file.
#[derive(Clone, Debug)]
pub struct Starts(PathBuf);

impl Starts {
    /// Counts in `path`.
    pub fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// Notes a start and returns how many processes died early right before it.
    pub fn note(&self, now: SystemTime) -> io::Result<u32> {
        let deaths = self.read(now);
        self.write(deaths.saturating_add(1), now)?;
        Ok(deaths)
    }

    /// Notes that this process has started well, or ended in order.
    pub fn settle(&self) {
        match fs::remove_file(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%error, "failed to note that the start went well");
            }
            Ok(()) | Err(_) => {}
        }
    }

    /// What cannot be read says nothing.
    fn read(&self, now: SystemTime) -> u32 {
        let text = fs::read_to_string(&self.0).unwrap_or_default();
        let mut words = text.split_whitespace();
        let (count, at) = (words.next().map(str::parse::<u32>), words.next().map(str::parse::<u64>));
        let (Some(Ok(count)), Some(Ok(at))) = (count, at) else { return 0 };
        let since = seconds(now).saturating_sub(at);
        if since > FORGOTTEN.as_secs() { 0 } else { count }
    }

    fn write(&self, count: u32, now: SystemTime) -> io::Result<()> {
        fs::write(&self.0, format!("{count} {}\n", seconds(now)))
    }
}

/// Whether so many early deaths are a crash loop.
pub fn is_crash_loop(deaths: u32) -> bool {
    deaths >= LOOP
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lifecycle::owner::tests::TestDir;

    fn starts(name: &str) -> (TestDir, Starts) {
        let dir = TestDir::new(name);
        dir.0.create().unwrap();
        let starts = Starts::new(dir.0.starts());
        (dir, starts)
    }

    #[test]
    fn deaths_in_a_row_are_a_crash_loop() {
        let (_dir, starts) = starts("loop");
        let deaths: Vec<_> = (0..4).map(|_| starts.note(SystemTime::now()).unwrap()).collect();
        assert_eq!(deaths, [0, 1, 2, 3]);
        assert_eq!(deaths.into_iter().map(is_crash_loop).collect::<Vec<_>>(), [false, false, false, true]);
    }

    #[test]
    fn a_start_that_went_well_ends_the_row() {
        let (_dir, starts) = starts("well");
        starts.note(SystemTime::now()).unwrap();
        starts.note(SystemTime::now()).unwrap();
        starts.settle();
        assert_eq!(starts.note(SystemTime::now()).unwrap(), 0);
    }

    #[test]
    fn deaths_of_long_ago_are_forgotten() {
        let (_dir, starts) = starts("long-ago");
        let now = SystemTime::now();
        starts.note(now - FORGOTTEN - Duration::from_secs(2)).unwrap();
        assert_eq!(starts.note(now).unwrap(), 0);
    }

    #[test]
    fn a_file_with_something_else_in_it_says_nothing() {
        let (dir, starts) = starts("garbage");
        for text in ["", "x", "3", "-1 5", "3 x"] {
            fs::write(dir.0.starts(), text).unwrap();
            assert_eq!(starts.note(SystemTime::now()).unwrap(), 0, "{text:?}");
        }
    }
}
