//! What the header of a chunk says, and what it leaves to be remembered (RTMP 1.0, sections 5.3.1.1 to 5.3.1.3).

use crate::reader::{Reader, UnexpectedEnd};

/// A 24-bit time field with this value means that 32 bits follow the header.
const EXTENDED: u32 = 0xFF_FFFF;
/// The chunk stream ids that a basic header can name.
pub(super) const CHUNK_STREAMS: std::ops::RangeInclusive<u32> = 2..=65_599;

/// How much of a message header a chunk gives: its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// Type 0: everything.
    Full,
    /// Type 1: everything but the message stream.
    SameStream,
    /// Type 2: the time alone.
    TimeOnly,
    /// Type 3: nothing. It goes on with a message, or begins one that is like the one before.
    Bare,
}

impl Format {
    const fn from_bits(basic: u8) -> Self {
        match basic >> 6 {
            0 => Self::Full,
            1 => Self::SameStream,
            2 => Self::TimeOnly,
            _ => Self::Bare,
        }
    }

    const fn bits(self) -> u8 {
        match self {
            Self::Full => 0x00,
            Self::SameStream => 0x40,
            Self::TimeOnly => 0x80,
            Self::Bare => 0xC0,
        }
    }
}

/// The time in the last message header that had one: what a type 3 header repeats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum TimeField {
    /// Less than 2^24 - 1. It is a timestamp in a header of type 0; a type 3 header adds it all the same.
    Short(u32),
    /// 32 bits in a header of type 0. A type 3 header repeats the timestamp, as SRS has it.
    ExtendedTimestamp(u32),
    /// 32 bits in a header of type 1 or 2. A type 3 header adds them again.
    ExtendedDelta(u32),
}

impl TimeField {
    const fn of_timestamp(value: u32) -> Self {
        if value >= EXTENDED { Self::ExtendedTimestamp(value) } else { Self::Short(value) }
    }

    /// The 32 bits, if it has them.
    pub(super) const fn extended(self) -> Option<u32> {
        match self {
            Self::Short(_) => None,
            Self::ExtendedTimestamp(value) | Self::ExtendedDelta(value) => Some(value),
        }
    }

    const fn value(self) -> u32 {
        match self {
            Self::Short(value) | Self::ExtendedTimestamp(value) | Self::ExtendedDelta(value) => value,
        }
    }

    /// The same field as it means in a header of type 1 or 2.
    const fn as_delta(self) -> Self {
        match self {
            Self::Short(_) | Self::ExtendedDelta(_) => self,
            Self::ExtendedTimestamp(value) => Self::ExtendedDelta(value),
        }
    }

    /// The same field as it means in a header of type 0.
    const fn as_timestamp(self) -> Self {
        match self {
            Self::Short(_) | Self::ExtendedTimestamp(_) => self,
            Self::ExtendedDelta(value) => Self::ExtendedTimestamp(value),
        }
    }

    /// What a type 3 header makes of it that itself has `value`.
    const fn repeated(self, value: u32) -> Self {
        match self {
            Self::Short(_) => self,
            Self::ExtendedTimestamp(_) => Self::ExtendedTimestamp(value),
            Self::ExtendedDelta(_) => Self::ExtendedDelta(value),
        }
    }

    const fn timestamp_after(self, before: u32) -> u32 {
        match self {
            Self::ExtendedTimestamp(value) => value,
            Self::Short(value) | Self::ExtendedDelta(value) => before.wrapping_add(value),
        }
    }
}

/// What both sides remember of a chunk stream: all that a later header can refer to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// The timestamp of the last message, modulo 2^32.
    pub timestamp: u32,
    /// The time that its header gave or repeated.
    pub(super) time_field: TimeField,
    /// Its length.
    pub length: u32,
    /// Its type.
    pub kind: u8,
    /// Its message stream.
    pub stream: u32,
}

impl State {
    /// What a chunk stream that has not been used counts from, where it may begin with a type 1 header.
    pub(super) const FRESH: Self =
        Self { timestamp: 0, time_field: TimeField::Short(0), length: 0, kind: 0, stream: 0 };

    /// The state after a full header of our own.
    #[must_use]
    pub const fn full(timestamp: u32, length: u32, kind: u8, stream: u32) -> Self {
        Self { timestamp, time_field: TimeField::of_timestamp(timestamp), length, kind, stream }
    }

    /// What follows from a message header of `format`, which takes from `given` what that format has room for.
    ///
    /// This is the only place that knows what headers inherit: readers apply it, and the writer asks it what the far
    /// side would make of a header.
    pub(super) const fn after(self, format: Format, given: &Self) -> Self {
        match format {
            Format::Full => {
                let time_field = given.time_field.as_timestamp();
                Self { timestamp: time_field.value(), time_field, ..*given }
            }
            Format::SameStream => {
                let time_field = given.time_field.as_delta();
                let timestamp = time_field.timestamp_after(self.timestamp);
                Self { timestamp, time_field, stream: self.stream, ..*given }
            }
            Format::TimeOnly => {
                let time_field = given.time_field.as_delta();
                Self { timestamp: time_field.timestamp_after(self.timestamp), time_field, ..self }
            }
            Format::Bare => {
                let time_field = self.time_field.repeated(given.time_field.value());
                Self { timestamp: time_field.timestamp_after(self.timestamp), time_field, ..self }
            }
        }
    }
}

/// The header of a message, as it was written and what it means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Header {
    /// The chunk stream.
    pub chunk_stream: u32,
    /// How much of it was written.
    pub format: Format,
    /// What is known of the chunk stream since.
    pub state: State,
}

impl Header {
    /// The length of the message.
    #[must_use]
    pub const fn length(&self) -> usize {
        self.state.length as usize
    }

    /// A header of the same message that is understood by whoever has the chunk stream in the state `known`: this one
    /// if it can be, otherwise one from which as much as possible is known.
    pub(super) fn understood_by(&self, known: Option<&State>) -> Self {
        let state = &self.state;
        let known = known.unwrap_or(&State::FRESH);
        let tells = |format: &Format| match format {
            Format::Full => State::FRESH.after(*format, state) == *state,
            Format::SameStream | Format::TimeOnly | Format::Bare => {
                *known != State::FRESH && known.after(*format, state) == *state
            }
        };
        match [self.format, Format::SameStream].into_iter().find(tells) {
            Some(format) => Self { format, ..*self },
            None => {
                let state = State::full(state.timestamp, state.length, state.kind, state.stream);
                Self { chunk_stream: self.chunk_stream, format: Format::Full, state }
            }
        }
    }

    /// Appends the header as it begins a message.
    pub(super) fn begin(&self, out: &mut Vec<u8>) {
        let state = &self.state;
        write_basic(self.format, self.chunk_stream, out);
        if self.format != Format::Bare {
            let short =
                if state.time_field.extended().is_some() { EXTENDED } else { state.time_field.value() };
            write_u24(short, out);
        }
        if matches!(self.format, Format::Full | Format::SameStream) {
            write_u24(state.length, out);
            out.push(state.kind);
        }
        if self.format == Format::Full {
            out.extend(state.stream.to_le_bytes());
        }
        write_extended(state, out);
    }

    /// Appends the header of a later chunk of the same message.
    pub(super) fn go_on(&self, out: &mut Vec<u8>) {
        write_basic(Format::Bare, self.chunk_stream, out);
        write_extended(&self.state, out);
    }
}

/// Flash, ffmpeg and SRS expect the extended timestamp in every chunk of its message.
fn write_extended(state: &State, out: &mut Vec<u8>) {
    out.extend(state.time_field.extended().iter().flat_map(|value| value.to_be_bytes()));
}

fn write_basic(format: Format, chunk_stream: u32, out: &mut Vec<u8>) {
    let above = chunk_stream.saturating_sub(64);
    let [.., high, low] = above.to_be_bytes();
    match chunk_stream {
        0..=63 => out.push(format.bits() | (chunk_stream.to_le_bytes()[0] & 0x3F)),
        64..=319 => out.extend([format.bits(), low]),
        _ => out.extend([format.bits() | 1, low, high]),
    }
}

fn write_u24(value: u32, out: &mut Vec<u8>) {
    let [_, high, middle, low] = value.to_be_bytes();
    out.extend([high, middle, low]);
}

/// Reads a basic header: the format and the chunk stream.
pub(super) fn read_basic(reader: &mut Reader<'_>) -> Result<(Format, u32), UnexpectedEnd> {
    let first = reader.u8()?;
    let chunk_stream = match first & 0x3F {
        0 => 64 + u32::from(reader.u8()?),
        1 => 64 + u32::from(u16::from_le_bytes(reader.array()?)),
        short => u32::from(short),
    };
    Ok((Format::from_bits(first), chunk_stream))
}

/// Reads the header of a chunk that begins a message on a chunk stream that was in the state `before`.
pub(super) fn read_message(
    reader: &mut Reader<'_>,
    format: Format,
    before: &State,
) -> Result<State, UnexpectedEnd> {
    let mut given = *before;
    let mut extended = before.time_field.extended().is_some();
    if format != Format::Bare {
        let short = read_u24(reader)?;
        extended = short == EXTENDED;
        given.time_field = TimeField::Short(short);
    }
    if matches!(format, Format::Full | Format::SameStream) {
        given.length = read_u24(reader)?;
        given.kind = reader.u8()?;
    }
    if format == Format::Full {
        given.stream = u32::from_le_bytes(reader.array()?);
    }
    if extended {
        given.time_field = TimeField::ExtendedTimestamp(reader.u32()?);
    }
    Ok(before.after(format, &given))
}

/// Skips the extended timestamp of a chunk that goes on with a message, if the encoder repeats it.
///
/// As few bytes are waited for as tell: the last chunk of a message may have less than four bytes of payload.
pub(super) fn skip_repeated(reader: &mut Reader<'_>, state: &State) -> Result<(), UnexpectedEnd> {
    let Some(value) = state.time_field.extended() else { return Ok(()) };
    let expected = value.to_be_bytes();
    let next = reader.remaining();
    if next.starts_with(&expected) {
        reader.u32()?;
    } else if expected.starts_with(next) {
        return Err(UnexpectedEnd);
    }
    Ok(())
}

fn read_u24(reader: &mut Reader<'_>) -> Result<u32, UnexpectedEnd> {
    let [high, middle, low] = reader.array()?;
    Ok(u32::from_be_bytes([0, high, middle, low]))
}
