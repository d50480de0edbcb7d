//! AAC as FLV has it (ISO 14496-3) and as MPEG-TS has it: each frame behind an ADTS header.

/// What comes before the bytes of the codec: format, kind of packet.
const TAG: usize = 2;
const HEADER: usize = 7;
const LOW_COMPLEXITY: u8 = 2;
/// The last object type that ADTS can name.
const LONG_TERM_PREDICTION: u8 = 4;
/// Says that a frequency follows in numbers, which ADTS has no room for.
const EXPLICIT: u8 = 15;

/// What a decoder is set up with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Config {
    object: u8,
    frequency: u8,
    channels: u8,
}

impl Config {
    /// Reads the payload of a sequence header.
    pub(super) fn parse(payload: &[u8]) -> Option<Self> {
        let &[first, second] = payload.get(TAG..TAG + 2)? else { return None };
        let frequency = (first & 7) << 1 | second >> 7;
        let object = match first >> 3 {
            object @ 1..=LONG_TERM_PREDICTION => object,
            // Extensions, which decoders find in the frames.
            _ => LOW_COMPLEXITY,
        };
        (frequency < EXPLICIT).then_some(Self { object, frequency, channels: second >> 3 & 0x0f })
    }

    /// A frame with its header, if it has a length that a header can name.
    pub(super) fn adts(self, payload: &[u8]) -> Option<Vec<u8>> {
        let frame = payload.get(TAG..)?;
        let length = u16::try_from(frame.len() + HEADER).ok().filter(|length| *length < 1 << 13)?;
        // Thirteen bits, the low three of which are at the top of a byte.
        let [high, middle, low] =
            [length >> 11, length >> 3 & 0xff, (length & 7) << 5].map(|bits| bits as u8);
        let Self { object, frequency, channels } = self;
        let header = [
            0xff,
            // MPEG-4, no checksum.
            0xf1,
            (object - 1) << 6 | frequency << 2 | channels >> 2,
            (channels & 3) << 6 | high,
            middle,
            low | 0x1f,
            // One frame, at a variable rate.
            0xfc,
        ];
        Some([&header, frame].concat())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// AAC-LC, 44100 Hz, stereo.
    const STEREO: &[u8] = &[0xaf, 0, 0x12, 0x10];

    #[test]
    fn a_frame_gets_a_header_with_its_length() {
        let config = Config::parse(STEREO).unwrap();
        assert_eq!(config, Config { object: 2, frequency: 4, channels: 2 });
        let payload = [&[0xaf, 1][..], &[7; 300]].concat();
        let adts = config.adts(&payload).unwrap();
        assert_eq!(adts[..4], [0xff, 0xf1, 0x50, 0x80]);
        let length = u32::from(adts[3] & 3) << 11 | u32::from(adts[4]) << 3 | u32::from(adts[5]) >> 5;
        assert_eq!((length, adts.len()), (307, 307));
        assert_eq!(adts[HEADER..], [7; 300]);
    }

    #[test]
    fn what_cannot_be_said_is_refused() {
        assert_eq!(Config::parse(&STEREO[..3]), None);
        assert_eq!(Config::parse(&[0xaf, 0, 0x17, 0x80]), None, "a frequency in numbers");
        let config = Config::parse(STEREO).unwrap();
        assert_eq!(config.adts(&[0xaf]), None);
        assert_eq!(config.adts(&vec![1; 1 << 13]), None);
    }
}
