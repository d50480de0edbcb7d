//! The CRC-32 of ISO 3309, which FINGERPRINT uses.

const POLYNOMIAL: u32 = 0xEDB8_8320;

/// Four bits at a time: a table that fits one cache line.
const NIBBLES: [u32; 16] = nibbles();

pub(super) fn checksum(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, &byte| step(step(crc ^ u32::from(byte))))
}

#[expect(clippy::indexing_slicing, reason = "the index is masked to the table's length")]
const fn step(crc: u32) -> u32 {
    crc >> 4 ^ NIBBLES[(crc & 0xF) as usize]
}

#[expect(clippy::indexing_slicing, reason = "the loop ends at the table's length")]
#[expect(clippy::cast_possible_truncation, reason = "the index stays below sixteen")]
const fn nibbles() -> [u32; 16] {
    let mut table = [0; 16];
    let mut index = 0;
    while index < table.len() {
        table[index] = divide(index as u32);
        index += 1;
    }
    table
}

const fn divide(nibble: u32) -> u32 {
    let mut crc = nibble;
    let mut bit = 0;
    while bit < 4 {
        crc = if crc & 1 == 0 { crc >> 1 } else { crc >> 1 ^ POLYNOMIAL };
        bit += 1;
    }
    crc
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_the_check_value_of_the_standard() {
        assert_eq!(checksum(b"123456789"), 0xCBF4_3926);
    }
}
