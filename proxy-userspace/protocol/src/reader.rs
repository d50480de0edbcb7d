//! The one cursor that reads fields out of untrusted bytes.

use thiserror::Error;

/// The input ended before the field that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("unexpected end of input")]
pub struct UnexpectedEnd;

/// A position in a byte slice that only moves forward, and never past its end.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    input: &'a [u8],
    position: usize,
}

impl<'a> Reader<'a> {
    /// Starts at the first byte of `input`.
    #[must_use]
    pub const fn new(input: &'a [u8]) -> Self {
        Self { input, position: 0 }
    }

    /// The number of bytes read so far.
    #[must_use]
    pub const fn position(&self) -> usize {
        self.position
    }

    /// The bytes read so far.
    #[must_use]
    pub fn consumed(&self) -> &'a [u8] {
        self.input.split_at(self.position).0
    }

    /// The bytes not read yet.
    #[must_use]
    pub fn remaining(&self) -> &'a [u8] {
        self.input.split_at(self.position).1
    }

    /// Whether every byte has been read.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.position == self.input.len()
    }

    /// Reads the next `count` bytes.
    ///
    /// # Errors
    ///
    /// Fails, without moving, if fewer bytes are left.
    pub fn bytes(&mut self, count: usize) -> Result<&'a [u8], UnexpectedEnd> {
        let taken = self.remaining().get(..count).ok_or(UnexpectedEnd)?;
        self.position += count;
        Ok(taken)
    }

    /// Reads the next `N` bytes as an array.
    ///
    /// # Errors
    ///
    /// Fails, without moving, if fewer bytes are left.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], UnexpectedEnd> {
        let array = *self.remaining().first_chunk().ok_or(UnexpectedEnd)?;
        self.position += N;
        Ok(array)
    }

    /// Reads one byte.
    ///
    /// # Errors
    ///
    /// Fails, without moving, if no byte is left.
    pub fn u8(&mut self) -> Result<u8, UnexpectedEnd> {
        self.array().map(u8::from_be_bytes)
    }

    /// Reads a 16-bit number in network order.
    ///
    /// # Errors
    ///
    /// Fails, without moving, if fewer than two bytes are left.
    pub fn u16(&mut self) -> Result<u16, UnexpectedEnd> {
        self.array().map(u16::from_be_bytes)
    }

    /// Reads a 32-bit number in network order.
    ///
    /// # Errors
    ///
    /// Fails, without moving, if fewer than four bytes are left.
    pub fn u32(&mut self) -> Result<u32, UnexpectedEnd> {
        self.array().map(u32::from_be_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_fields_in_network_order() {
        let mut reader = Reader::new(&[1, 2, 3, 4, 5, 6, 7, 8, 9]);
        assert_eq!(reader.u8(), Ok(1));
        assert_eq!(reader.u16(), Ok(0x0203));
        assert_eq!(reader.u32(), Ok(0x0405_0607));
        assert_eq!(reader.consumed(), [1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(reader.bytes(2), Ok(&[8, 9][..]));
        assert!(reader.is_empty());
    }

    #[test]
    fn does_not_move_when_a_field_is_cut() {
        let mut reader = Reader::new(&[1, 2, 3]);
        assert_eq!(reader.u32(), Err(UnexpectedEnd));
        assert_eq!(reader.bytes(usize::MAX), Err(UnexpectedEnd));
        assert_eq!(reader.position(), 0);
        assert_eq!(reader.remaining(), [1, 2, 3]);
    }
}
