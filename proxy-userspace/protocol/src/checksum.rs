//! The checksum of IP, UDP and ICMP (RFC 1071).

/// The sum of 16-bit words; a message of any length that IP has cannot overflow it.
pub(crate) fn sum(bytes: &[u8]) -> u32 {
    let word = |pair: &[u8]| match pair {
        [high, low] => u32::from(u16::from_be_bytes([*high, *low])),
        [high] => u32::from(*high) << 8,
        _ => 0,
    };
    bytes.chunks(2).map(word).fold(0, u32::saturating_add)
}

pub(crate) fn fold(sum: u32) -> u16 {
    let once = (sum & 0xffff) + (sum >> 16);
    let twice = (once & 0xffff) + (once >> 16);
    u16::try_from(twice & 0xffff).unwrap_or(u16::MAX)
}

/// RFC 1624, equation 3: some words give way to others. UDP writes a sum of 0 as 0xffff.
pub(crate) fn update(checksum: u16, removed: u32, added: u32) -> u16 {
    let updated = !fold(u32::from(!checksum) + u32::from(!fold(removed)) + added);
    if updated == 0 { u16::MAX } else { updated }
}
