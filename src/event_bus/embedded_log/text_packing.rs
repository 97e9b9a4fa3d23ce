//! Packs the T-env time of nearly every row. Only what comes back byte for byte is packed. This runs once per
//! event, and most events share their day with the one before.

use wellspring_domain::time_text::{Micros, is_env_shape};

const MICROS_PER_SECOND: i64 = 1_000_000;

/// Packs T-env times; remembers the last day.
#[derive(Default)]
pub struct TimePacker {
    day: [u8; 10],
    midnight: i64,
}

impl TimePacker {
    /// A T-env text as microseconds.
    pub fn pack(&mut self, text: &[u8]) -> Option<Micros> {
        if !is_env_shape(text) {
            return None;
        }
        if text[..10] != self.day {
            let mut midnight = *b"0000-00-00T00:00:00.000000Z";
            midnight[..10].copy_from_slice(&text[..10]);
            self.midnight = Micros::parse_env(&midnight)?.0;
            self.day.copy_from_slice(&text[..10]);
        }
        let (hour, minute) = (digits(&text[11..13]), digits(&text[14..16]));
        let (second, micros) = (digits(&text[17..19]), digits(&text[20..26]));
        if hour >= 24 || minute >= 60 || second >= 60 {
            return None;
        }
        let seconds = hour * 3600 + minute * 60 + second;
        Some(Micros(self.midnight + seconds * MICROS_PER_SECOND + micros))
    }
}

fn digits(text: &[u8]) -> i64 {
    text.iter()
        .fold(0, |sum, digit| sum * 10 + i64::from(digit - b'0'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_texts_that_come_back_are_packed() {
        let mut packer = TimePacker::default();
        for text in [
            "2026-01-01T00:00:00.000000Z",
            "2026-01-01T23:59:59.999999Z",
            "2024-02-29T12:00:00.000001Z",
            "1969-12-31T23:59:59.999999Z",
            "0001-01-01T00:00:00.000000Z",
            "9999-12-31T23:59:59.999999Z",
        ] {
            let packed = packer.pack(text.as_bytes()).unwrap();
            assert_eq!(packed.format_env(), text);
        }
        for text in [
            "2026-01-01T24:00:00.000000Z",
            "2026-01-01T23:60:00.000000Z",
            "2026-01-01T23:59:60.000000Z",
            "2025-02-29T12:00:00.000000Z",
            "2026-13-01T12:00:00.000000Z",
            "2026-01-01 00:00:00.000000Z",
            "2026-01-01T00:00:00Z",
            "",
        ] {
            assert_eq!(packer.pack(text.as_bytes()), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn packed_times_come_back(micros in 0..253_402_300_800_000_000i64) {
            let text = Micros(micros).format_env();
            prop_assert_eq!(TimePacker::default().pack(text.as_bytes()), Some(Micros(micros)));
        }
    }
}
