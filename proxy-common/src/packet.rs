//! The only view of a frame that packet code gets: bounds are checked where a header is borrowed, and the borrow ends
//! before anything can move the bytes.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// A header: any bytes are a valid value, at any address, without padding.
pub trait Wire: FromBytes + IntoBytes + KnownLayout + Immutable + Unaligned + Copy {}

impl<T: FromBytes + IntoBytes + KnownLayout + Immutable + Unaligned + Copy> Wire for T {}

/// A frame from its link-layer header on.
pub trait Packet {
    /// Borrows the `T` that starts `offset` bytes into the frame, or `None` if the frame ends before it does.
    fn get_mut<T: Wire>(&mut self, offset: usize) -> Option<&mut T>;
}

impl Packet for [u8] {
    fn get_mut<T: Wire>(&mut self, offset: usize) -> Option<&mut T> {
        let bytes = <[u8]>::get_mut(self, offset..)?;
        T::mut_from_prefix(bytes).ok().map(|(header, _)| header)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn borrows_a_header_that_ends_with_the_frame() {
        let mut frame = [1, 2, 3, 4];
        *Packet::get_mut::<[u8; 2]>(frame.as_mut_slice(), 2).unwrap() = [8, 9];
        assert_eq!(frame, [1, 2, 8, 9]);
    }

    #[test]
    fn refuses_a_header_that_ends_behind_the_frame() {
        let mut frame = [0; 4];
        assert_eq!(Packet::get_mut::<[u8; 2]>(frame.as_mut_slice(), 3), None);
        assert_eq!(Packet::get_mut::<[u8; 2]>(frame.as_mut_slice(), usize::MAX), None);
    }
}
