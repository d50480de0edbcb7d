//! Media without a camera: packets in the shape and rhythm of H264 video and Opus audio.

use std::time::{Duration, Instant};

use rand::Rng as _;

/// One RTP packet to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Packet {
    pub(super) sequence: u64,
    pub(super) timestamp: u32,
    pub(super) marker: bool,
    pub(super) payload: Vec<u8>,
}

/// A steady source of packets.
#[derive(Debug)]
pub(super) struct Source {
    shape: Shape,
    sequence: u64,
    timestamp: u32,
    due: Instant,
}

#[derive(Debug, Clone, Copy)]
struct Shape {
    /// The time between two frames.
    interval: Duration,
    /// Timestamp units between two frames.
    step: u32,
    frame_bytes: usize,
    packet_bytes: usize,
    header: &'static [u8],
}

const FRAMES_PER_SECOND: u32 = 30;
const VIDEO_CLOCK: u32 = 90_000;
const PACKET_BYTES: usize = 1100;

/// The middle of an FU-A fragment of a non-reference slice (RFC 6184 section 5.8).
const FU_A: &[u8] = &[0x1c, 0x01];

/// A one-frame CELT packet of 20 ms (RFC 6716 section 3.1).
const OPUS: &[u8] = &[0xf8];

impl Source {
    /// Video of so many bits per second.
    pub(super) fn video(bitrate: u32, start: Instant) -> Self {
        let shape = Shape {
            interval: Duration::from_secs(1) / FRAMES_PER_SECOND,
            step: VIDEO_CLOCK / FRAMES_PER_SECOND,
            frame_bytes: (bitrate / 8 / FRAMES_PER_SECOND) as usize,
            packet_bytes: PACKET_BYTES,
            header: FU_A,
        };
        Self::new(shape, start)
    }

    /// Audio of 32 kbit/s.
    pub(super) fn audio(start: Instant) -> Self {
        let interval = Duration::from_millis(20);
        Self::new(Shape { interval, step: 960, frame_bytes: 80, packet_bytes: 80, header: OPUS }, start)
    }

    /// Streams start apart from each other, or all frames of all publishers would leave in one burst.
    fn new(shape: Shape, start: Instant) -> Self {
        let mut random = rand::rng();
        let due = start + shape.interval.mul_f64(random.random());
        Self { shape, sequence: random.random_range(0..0x8000), timestamp: random.random(), due }
    }

    /// When the next frame is due.
    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// The packets of one frame if it is due. Frames missed while the thread was held up are sent late, not
    /// left out.
    pub(super) fn frame(&mut self, now: Instant) -> Vec<Packet> {
        if now < self.due {
            return Vec::new();
        }
        self.due += self.shape.interval;
        self.timestamp = self.timestamp.wrapping_add(self.shape.step);
        let Shape { frame_bytes, packet_bytes, .. } = self.shape;
        let count = frame_bytes.div_ceil(packet_bytes).max(1);
        let size = frame_bytes.div_ceil(count);
        (1..=count).map(|index| self.packet(size, index == count)).collect()
    }

    fn packet(&mut self, size: usize, marker: bool) -> Packet {
        self.sequence += 1;
        let mut payload = self.shape.header.to_vec();
        payload.extend_from_slice(&self.sequence.to_be_bytes());
        payload.resize(size.max(payload.len()), 0x55);
        Packet { sequence: self.sequence, timestamp: self.timestamp, marker, payload }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_of_video_has_the_asked_size_and_no_gap() {
        let start = Instant::now();
        let mut source = Source::video(1_000_000, start);
        let mut packets = Vec::new();
        for tick in 0..1000 {
            packets.extend(source.frame(start + Duration::from_millis(tick)));
        }
        let bits = packets.iter().map(|packet| packet.payload.len() * 8).sum::<usize>();
        assert!((950_000..1_050_000).contains(&bits), "{bits} bits");
        assert!(packets.iter().all(|packet| packet.payload.len() <= PACKET_BYTES));
        assert!(packets.windows(2).all(|pair| pair[0].sequence + 1 == pair[1].sequence));
    }
}
