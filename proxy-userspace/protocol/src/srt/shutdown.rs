//! The packet that ends a connection (draft-sharabayko-srt-01, section 3.2.7).

use super::SocketId;

/// A control packet (the first bit) of type 5.
const SHUTDOWN: [u8; 4] = [0x80, 0x05, 0, 0];
/// Bytes of it: libsrt puts a word of nothing behind it, as behind every control packet without content.
const LEN: usize = 20;

/// Tells `receiver` that its connection is over; the timestamp is in microseconds since the sender began.
pub fn shutdown(receiver: SocketId, timestamp: u32) -> [u8; LEN] {
    let mut packet = [0; LEN];
    packet[..4].copy_from_slice(&SHUTDOWN);
    packet[8..12].copy_from_slice(&timestamp.to_be_bytes());
    packet[12..16].copy_from_slice(&receiver.0.to_be_bytes());
    packet
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_its_receiver_behind_type_and_time() {
        let expected = "80050000 00000000 00012345 2f9bb4aa 00000000".replace(' ', "");
        let packet: String =
            shutdown(SocketId(0x2F9B_B4AA), 0x0001_2345).map(|b| format!("{b:02x}")).concat();
        assert_eq!(packet, expected);
    }
}
