//! What waits for one player. A player that lets too much wait is left behind: its queue ends.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::frame::Frame;

/// The most that may wait, in bytes.
pub(super) const LIMIT: usize = 8 << 20;
/// What a frame costs beside its payload.
const OVERHEAD: usize = 128;

/// The stream's end.
#[derive(Debug)]
pub(super) struct Feed {
    frames: UnboundedSender<Frame>,
    waiting: Arc<AtomicUsize>,
}

/// The player's end.
#[derive(Debug)]
pub(super) struct Queue {
    frames: UnboundedReceiver<Frame>,
    waiting: Arc<AtomicUsize>,
}

/// Why a feed is of no use any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// The player has left.
    Gone,
    /// Too much waits.
    Slow,
}

pub(super) fn queue() -> (Feed, Queue) {
    let (sender, receiver) = unbounded_channel();
    let waiting = Arc::new(AtomicUsize::new(0));
    let feed = Feed { frames: sender, waiting: Arc::clone(&waiting) };
    (feed, Queue { frames: receiver, waiting })
}

impl Feed {
    pub(super) fn push(&self, frame: &Frame) -> Result<(), Refused> {
        let cost = cost(frame);
        if self.waiting.fetch_add(cost, Ordering::Relaxed) + cost > LIMIT {
            return Err(Refused::Slow);
        }
        self.frames.send(frame.clone()).map_err(|_| Refused::Gone)
    }

    pub(super) fn has_player(&self) -> bool {
        !self.frames.is_closed()
    }
}

impl Queue {
    /// The next frame, once it is there; `None` when there will be none.
    pub(super) async fn next(&mut self) -> Option<Frame> {
        let frame = self.frames.recv().await?;
        self.waiting.fetch_sub(cost(&frame), Ordering::Relaxed);
        Some(frame)
    }

    /// The next frame, if it is there.
    pub(super) fn try_next(&mut self) -> Option<Frame> {
        let frame = self.frames.try_recv().ok()?;
        self.waiting.fetch_sub(cost(&frame), Ordering::Relaxed);
        Some(frame)
    }
}

fn cost(frame: &Frame) -> usize {
    frame.payload.len() + OVERHEAD
}

#[cfg(test)]
mod tests {
    use super::super::frame::{Kind, tests::frame};
    use super::*;

    #[test]
    fn a_player_that_takes_nothing_is_left_behind_and_one_that_takes_is_not() {
        let big = frame(Kind::Video, 0, &vec![0; LIMIT / 4]);
        let (feed, mut queue) = queue();
        for _ in 0..100 {
            assert_eq!(feed.push(&big), Ok(()));
            assert!(queue.try_next().is_some());
        }
        let outcomes: Vec<_> = (0..4).map(|_| feed.push(&big)).collect();
        assert_eq!(outcomes, [Ok(()), Ok(()), Ok(()), Err(Refused::Slow)]);
    }

    #[test]
    fn a_player_that_has_left_is_noticed() {
        let (feed, queue) = queue();
        drop(queue);
        assert!(!feed.has_player());
        assert_eq!(feed.push(&frame(Kind::Audio, 0, &[1])), Err(Refused::Gone));
    }
}
