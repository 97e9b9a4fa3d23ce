//! CRC-32C, the checksum of our own file formats.

use crc_fast::{CrcAlgorithm, Digest, crc32_iscsi};

/// The checksum of some bytes.
pub fn crc32c(bytes: &[u8]) -> u32 {
    crc32_iscsi(bytes)
}

/// The checksum of bytes behind others that have the checksum `before`.
pub fn crc32c_append(before: u32, bytes: &[u8]) -> u32 {
    // A checksum is the inverted state.
    let mut digest = Digest::new_with_init_state(CrcAlgorithm::Crc32Iscsi, u64::from(!before));
    digest.update(bytes);
    digest.finalize() as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_check_value_of_the_polynomial() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(b""), 0);
    }

    /// Bit by bit, as the polynomial says.
    fn slowly(bytes: &[u8]) -> u32 {
        let step = |state: u32, _| (state >> 1) ^ (0x82f6_3b78 & (state & 1).wrapping_neg());
        !bytes.iter().fold(!0u32, |state, byte| {
            (0..8).fold(state ^ u32::from(*byte), step)
        })
    }

    proptest! {
        #[test]
        fn bytes_in_parts_have_the_checksum_of_the_whole(
            bytes in prop::collection::vec(any::<u8>(), 0..5000),
            part in 0usize..5000,
        ) {
            let (first, second) = bytes.split_at(part.min(bytes.len()));
            prop_assert_eq!(crc32c(&bytes), slowly(&bytes));
            prop_assert_eq!(crc32c_append(crc32c(first), second), crc32c(&bytes));
        }
    }
}
