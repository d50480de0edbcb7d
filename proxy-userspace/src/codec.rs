//! The compact form in which state leaves a process for the next one: numbers in network order, texts and lists behind
//! their length. Whoever reads gets back exactly what was written, or an error; nothing is guessed.

use std::{
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

use proxy_protocol::reader::{Reader, UnexpectedEnd};

/// Why bytes are not what was expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// They end too early.
    #[error("it ends too early")]
    Truncated,
    /// There are more than there should be.
    #[error("it goes on after its end")]
    Trailing,
    /// A field has a value it cannot have.
    #[error("{0} is not valid")]
    Invalid(&'static str),
    /// They are in a layout that this build does not know.
    #[error("its version is {0}")]
    Version(u8),
}

impl From<UnexpectedEnd> for DecodeError {
    fn from(UnexpectedEnd: UnexpectedEnd) -> Self {
        Self::Truncated
    }
}

/// Appends fields to bytes.
#[derive(Debug, Default)]
pub struct Encoder(Vec<u8>);

impl Encoder {
    /// The bytes.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// A byte.
    pub fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    /// A 16-bit number.
    pub fn u16(&mut self, value: u16) {
        self.0.extend(value.to_be_bytes());
    }

    /// A 32-bit number.
    pub fn u32(&mut self, value: u32) {
        self.0.extend(value.to_be_bytes());
    }

    /// A 64-bit number.
    pub fn u64(&mut self, value: u64) {
        self.0.extend(value.to_be_bytes());
    }

    /// A list.
    pub fn list<T>(&mut self, items: &[T], put: impl Fn(&mut Self, &T)) {
        self.count(items.len());
        items.iter().for_each(|item| put(self, item));
    }

    fn count(&mut self, count: usize) {
        self.u32(u32::try_from(count).expect("no list of ours has four billion items"));
    }

    /// Bytes behind their length.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        self.0.extend_from_slice(bytes);
    }

    /// A text of at most 64 KiB behind its length; a longer one is cut, which its reader refuses or shows as it is.
    pub fn text(&mut self, text: &str) {
        let end = text.floor_char_boundary(usize::from(u16::MAX));
        let text = text.get(..end).expect("the end is at a boundary");
        self.u16(u16::try_from(text.len()).expect("it was cut to fit"));
        self.0.extend_from_slice(text.as_bytes());
    }

    /// An address.
    pub fn ip(&mut self, ip: IpAddr) {
        match ip {
            IpAddr::V4(v4) => {
                self.u8(4);
                self.0.extend(v4.octets());
            }
            IpAddr::V6(v6) => {
                self.u8(6);
                self.0.extend(v6.octets());
            }
        }
    }

    /// An address and a port.
    pub fn address(&mut self, address: SocketAddr) {
        self.ip(address.ip());
        self.u16(address.port());
    }

    /// Something that may be absent.
    pub fn option<T>(&mut self, value: Option<T>, put: impl FnOnce(&mut Self, T)) {
        self.u8(u8::from(value.is_some()));
        if let Some(value) = value {
            put(self, value);
        }
    }
}

/// Takes fields off bytes.
#[derive(Debug)]
pub struct Decoder<'a>(Reader<'a>);

impl<'a> Decoder<'a> {
    /// Starts at the first byte.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(Reader::new(bytes))
    }

    /// Refuses bytes that are left.
    pub fn finish(self) -> Result<(), DecodeError> {
        if self.0.is_empty() { Ok(()) } else { Err(DecodeError::Trailing) }
    }

    /// A byte.
    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        Ok(self.0.u8()?)
    }

    /// The version of the layout, if it is the one that this build knows.
    pub fn version(&mut self, known: u8) -> Result<(), DecodeError> {
        let version = self.u8()?;
        if version == known { Ok(()) } else { Err(DecodeError::Version(version)) }
    }

    /// A 16-bit number.
    pub fn u16(&mut self) -> Result<u16, DecodeError> {
        Ok(self.0.u16()?)
    }

    /// A 32-bit number.
    pub fn u32(&mut self) -> Result<u32, DecodeError> {
        Ok(self.0.u32()?)
    }

    /// A 64-bit number.
    pub fn u64(&mut self) -> Result<u64, DecodeError> {
        Ok(u64::from_be_bytes(self.0.array()?))
    }

    /// A list; each item takes a byte at least, so that a wrong count cannot ask for much memory.
    pub fn list<T>(
        &mut self,
        item: impl Fn(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        let count = self.u32()? as usize;
        if count > self.0.remaining().len() {
            return Err(DecodeError::Truncated);
        }
        (0..count).map(|_| item(self)).collect()
    }

    /// Bytes behind their length.
    pub fn bytes(&mut self) -> Result<&'a [u8], DecodeError> {
        let count = self.u32()? as usize;
        Ok(self.0.bytes(count)?)
    }

    /// A text.
    pub fn text(&mut self) -> Result<&'a str, DecodeError> {
        let count = usize::from(self.u16()?);
        std::str::from_utf8(self.0.bytes(count)?).map_err(|_| DecodeError::Invalid("text"))
    }

    /// A text that is something else.
    pub fn parsed<T: FromStr>(&mut self, what: &'static str) -> Result<T, DecodeError> {
        self.text()?.parse().map_err(|_| DecodeError::Invalid(what))
    }

    /// An address.
    pub fn ip(&mut self) -> Result<IpAddr, DecodeError> {
        match self.u8()? {
            4 => Ok(IpAddr::from(self.0.array::<4>()?)),
            6 => Ok(IpAddr::from(self.0.array::<16>()?)),
            _ => Err(DecodeError::Invalid("address family")),
        }
    }

    /// An address and a port.
    pub fn address(&mut self) -> Result<SocketAddr, DecodeError> {
        Ok(SocketAddr::new(self.ip()?, self.u16()?))
    }

    /// Something that may be absent.
    pub fn option<T>(
        &mut self,
        take: impl FnOnce(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Option<T>, DecodeError> {
        match self.u8()? {
            0 => Ok(None),
            1 => take(self).map(Some),
            _ => Err(DecodeError::Invalid("presence")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read() {
        let addresses = ["10.0.0.1:80".parse().unwrap(), "[2001:db8::1]:443".parse().unwrap()];
        let mut encoder = Encoder::default();
        encoder.u64(u64::MAX - 1);
        encoder.text("naïve");
        encoder.option(None::<u8>, Encoder::u8);
        encoder.option(Some(7), Encoder::u16);
        encoder.list(&addresses, |encoder, address| encoder.address(*address));
        let bytes = encoder.into_bytes();
        let mut decoder = Decoder::new(&bytes);
        assert_eq!(decoder.u64(), Ok(u64::MAX - 1));
        assert_eq!(decoder.text(), Ok("naïve"));
        assert_eq!(decoder.option(Decoder::u8), Ok(None));
        assert_eq!(decoder.option(Decoder::u16), Ok(Some(7)));
        assert_eq!(decoder.list(Decoder::address), Ok(addresses.to_vec()));
        assert_eq!(decoder.finish(), Ok(()));
    }

    #[test]
    fn a_count_above_what_is_there_asks_for_no_memory() {
        let mut decoder = Decoder::new(&[0xff, 0xff, 0xff, 0xff, 1]);
        assert_eq!(decoder.list(Decoder::u8), Err(DecodeError::Truncated));
    }

    #[test]
    fn what_is_left_over_is_an_error() {
        assert_eq!(Decoder::new(&[0]).finish(), Err(DecodeError::Trailing));
    }
}
