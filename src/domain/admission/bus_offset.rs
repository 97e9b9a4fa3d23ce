//! Where a record lies in its partition: a line of a file, or a sequence number of a stream (contract 8).

use crate::canonical_json::push_u64;
use std::fmt;

/// A Kinesis sequence number. Its text is a decimal of up to 57 digits; numbers of one shard compare as
/// the records' order, so it is kept as a number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SequenceNumber([u64; 3]);

/// Digits that certainly fit: 2^192 has 58.
const DIGITS_MAX: usize = 57;

impl SequenceNumber {
    /// Reads the decimal text; `None` when it is empty, too long or holds anything but digits.
    pub fn parse(text: &str) -> Option<SequenceNumber> {
        if text.is_empty() || text.len() > DIGITS_MAX {
            return None;
        }
        let mut limbs = [0u64; 3];
        for byte in text.bytes() {
            let digit = byte.is_ascii_digit().then(|| u128::from(byte - b'0'))?;
            let mut carry = digit;
            for limb in limbs.iter_mut().rev() {
                let wide = u128::from(*limb) * 10 + carry;
                *limb = wide as u64;
                carry = wide >> 64;
            }
        }
        Some(SequenceNumber(limbs))
    }
}

impl fmt::Display for SequenceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Chunks of 19 digits, least significant first: 10^19 is the largest power of ten in 64 bits.
        const CHUNK: u128 = 10_000_000_000_000_000_000;
        let mut limbs = self.0;
        let mut chunks = [0u64; 4];
        let mut count = 0;
        while count == 0 || limbs != [0; 3] {
            let mut rest = 0u128;
            for limb in &mut limbs {
                let wide = (rest << 64) | u128::from(*limb);
                *limb = (wide / CHUNK) as u64;
                rest = wide % CHUNK;
            }
            chunks[count] = rest as u64;
            count += 1;
        }
        write!(f, "{}", chunks[count - 1])?;
        for chunk in chunks[..count - 1].iter().rev() {
            write!(f, "{chunk:019}")?;
        }
        Ok(())
    }
}

/// A record's place in its partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BusOffset {
    /// 0-based line of a partition file.
    Line(u64),
    /// Sequence number in a Kinesis shard.
    Sequence(SequenceNumber),
}

impl BusOffset {
    /// The contract's `offset_kind`.
    pub fn kind(self) -> &'static str {
        match self {
            BusOffset::Line(_) => "file_line",
            BusOffset::Sequence(_) => "kinesis_sequence",
        }
    }

    /// Appends the offset's text.
    pub fn push_text(self, out: &mut Vec<u8>) {
        match self {
            BusOffset::Line(line) => push_u64(out, line),
            BusOffset::Sequence(sequence) => out.extend_from_slice(sequence.to_string().as_bytes()),
        }
    }

    /// The offset a `kind` and its text name; `None` when they are not one.
    pub fn parse(kind: &str, text: &str) -> Option<BusOffset> {
        match kind {
            "file_line" => text.parse().ok().map(BusOffset::Line),
            "kinesis_sequence" => SequenceNumber::parse(text).map(BusOffset::Sequence),
            _ => None,
        }
    }
}

impl fmt::Display for BusOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BusOffset::Line(line) => line.fmt(f),
            BusOffset::Sequence(sequence) => sequence.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sequence_numbers_keep_every_digit_and_the_order_of_their_shard() {
        let first = "49590338271490256608559692538361571095921575989136588898";
        let later = "49590338271490256608559692540925702759324208523137515618";
        let parse = |text| SequenceNumber::parse(text).unwrap();
        assert_eq!(parse(first).to_string(), first);
        assert!(parse(first) < parse(later));
        assert!(parse("9") < parse("10"));
        assert_eq!(parse("0").to_string(), "0");
        for bad in ["", "-1", "1 ", "1e3", &"9".repeat(58)] {
            assert_eq!(SequenceNumber::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn an_offset_is_read_back_from_its_kind_and_text() {
        let offsets = [
            BusOffset::Line(u64::MAX),
            BusOffset::Sequence(SequenceNumber::parse(&"9".repeat(57)).unwrap()),
        ];
        for offset in offsets {
            let again = BusOffset::parse(offset.kind(), &offset.to_string());
            assert_eq!(again, Some(offset));
        }
        assert_eq!(BusOffset::parse("kafka_offset", "1"), None);
    }

    proptest! {
        #[test]
        fn any_decimal_survives(text in "[1-9][0-9]{0,56}") {
            prop_assert_eq!(SequenceNumber::parse(&text).unwrap().to_string(), text);
        }
    }
}
