//! H.264 as FLV has it (ISO 14496-15) and as MPEG-TS has it (ISO 14496-10, annex B).

/// What comes before the bytes of the codec: type and codec, kind of packet, composition time.
const TAG: usize = 5;
const START_CODE: [u8; 4] = [0, 0, 0, 1];
/// Says that a picture begins, of any kind.
const DELIMITER: [u8; 6] = [0, 0, 0, 1, 9, 0xf0];

const TYPE_MASK: u8 = 0x1f;
const NAL_SPS: u8 = 7;
const NAL_DELIMITER: u8 = 9;
/// The low bits of a field of which the high ones are reserved.
const SPS_COUNT: u8 = 0x1f;

/// What a decoder is set up with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Config {
    length_size: usize,
    /// Sequence and picture parameter sets, each behind a start code.
    parameters: Vec<u8>,
}

impl Config {
    /// Reads the payload of a sequence header.
    pub(super) fn parse(payload: &[u8]) -> Option<Self> {
        let record = payload.get(TAG..)?;
        let length_size = usize::from(record.get(4)? & 3) + 1;
        let mut rest = record.get(5..)?;
        let mut parameters = Vec::new();
        for mask in [SPS_COUNT, u8::MAX] {
            let (count, sets) = rest.split_first()?;
            rest = sets;
            for _ in 0..count & mask {
                let (unit, next) = take_unit(rest, 2)?;
                append(unit, &mut parameters);
                rest = next;
            }
        }
        Some(Self { length_size, parameters })
    }

    /// A picture with start codes, with the parameter sets before a key frame that lacks them.
    pub(super) fn annex_b(&self, payload: &[u8], is_key: bool) -> Option<Vec<u8>> {
        let (mut units, mut has_parameters) = (Vec::new(), false);
        let mut rest = payload.get(TAG..)?;
        while !rest.is_empty() {
            let (unit, next) = take_unit(rest, self.length_size)?;
            match unit.first().map(|byte| byte & TYPE_MASK) {
                None | Some(NAL_DELIMITER) => {}
                Some(kind) => {
                    has_parameters |= kind == NAL_SPS;
                    append(unit, &mut units);
                }
            }
            rest = next;
        }
        let parameters = if is_key && !has_parameters { self.parameters.as_slice() } else { &[] };
        Some([&DELIMITER, parameters, &units].concat())
    }
}

/// Milliseconds between decoding and showing.
pub(super) fn composition_time(payload: &[u8]) -> Option<i32> {
    let &[high, middle, low] = payload.get(2..TAG)? else { return None };
    Some(i32::from_be_bytes([high, middle, low, 0]) >> 8)
}

/// Takes a unit behind its length.
fn take_unit(bytes: &[u8], length_size: usize) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_at_checked(length_size)?;
    let length = length.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
    rest.split_at_checked(length)
}

fn append(unit: &[u8], out: &mut Vec<u8>) {
    out.extend(START_CODE);
    out.extend_from_slice(unit);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lengths of four bytes, one set of either kind.
    const HEADER: &[u8] =
        &[0x17, 0, 0, 0, 0, 1, 0x42, 0, 0x1e, 0xff, 0xe1, 0, 3, 0x67, 1, 2, 1, 0, 2, 0x68, 3];
    const KEY: &[u8] = &[0x17, 1, 0, 0, 80, 0, 0, 0, 2, 0x65, 9, 0, 0, 0, 1, 0x41];

    #[test]
    fn a_key_frame_gets_a_delimiter_and_the_parameters() {
        let config = Config::parse(HEADER).unwrap();
        let units = [&DELIMITER[..], b"\0\0\0\x01\x67\x01\x02", b"\0\0\0\x01\x68\x03"];
        let pictures: &[u8] = b"\0\0\0\x01\x65\x09\0\0\0\x01\x41";
        assert_eq!(config.annex_b(KEY, true).unwrap(), [&units.concat(), pictures].concat());
        assert_eq!(config.annex_b(KEY, false).unwrap(), [&DELIMITER, pictures].concat());
    }

    #[test]
    fn whatever_is_cut_is_refused() {
        for length in 0..HEADER.len() {
            assert_eq!(Config::parse(&HEADER[..length]), None, "{length}");
        }
        let config = Config::parse(HEADER).unwrap();
        let whole = [TAG, TAG + 6, KEY.len()];
        for length in (0..KEY.len()).filter(|length| !whole.contains(length)) {
            assert_eq!(config.annex_b(&KEY[..length], true), None, "{length}");
        }
    }

    #[test]
    fn the_composition_time_has_a_sign() {
        assert_eq!(composition_time(KEY), Some(80));
        assert_eq!(composition_time(&[0x27, 1, 0xff, 0xff, 0xd8]), Some(-40));
        assert_eq!(composition_time(&[0x27]), None);
    }
}
