//! Timestamps in the four text formats other programs read (contract 0.2), and one tolerant parser.
//!
//! Civil dates are computed with the proleptic Gregorian calendar in plain integers, so that hashes
//! which cover a timestamp never depend on a library's rounding.

use std::fmt;
use std::ops::Range;

/// A UTC instant in microseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Micros(pub i64);

const MICROS_PER_SECOND: i64 = 1_000_000;
const SECONDS_PER_DAY: i64 = 86_400;

/// Why a timestamp text was not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a timestamp: {text:?}")]
pub struct TimeTextError {
    /// The text as given, cut to 64 characters.
    pub text: String,
}

/// A calendar date and time of day, always in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Civil {
    /// Year, may be negative before year 1.
    pub year: i64,
    /// 1..=12.
    pub month: u32,
    /// 1..=31.
    pub day: u32,
    /// 0..=23.
    pub hour: u32,
    /// 0..=59.
    pub minute: u32,
    /// 0..=59.
    pub second: u32,
    /// 0..=999_999.
    pub micros: u32,
}

impl Civil {
    /// True when there is such a day and such a time of it.
    fn is_valid(&self) -> bool {
        (1..=12).contains(&self.month)
            && (1..=days_in_month(self.year, self.month)).contains(&self.day)
            && self.hour < 24
            && self.minute < 60
            && self.second < 60
    }
}

impl Micros {
    /// The calendar fields of this instant in UTC.
    pub fn civil(self) -> Civil {
        let seconds = self.0.div_euclid(MICROS_PER_SECOND);
        let micros = self.0.rem_euclid(MICROS_PER_SECOND) as u32;
        let day_number = seconds.div_euclid(SECONDS_PER_DAY);
        let second_of_day = seconds.rem_euclid(SECONDS_PER_DAY) as u32;
        let (year, month, day) = civil_from_days(day_number);
        Civil {
            year,
            month,
            day,
            hour: second_of_day / 3600,
            minute: second_of_day / 60 % 60,
            second: second_of_day % 60,
            micros,
        }
    }

    /// The instant of calendar fields given in UTC.
    pub fn from_civil(civil: Civil) -> Micros {
        let days = days_from_civil(civil.year, civil.month, civil.day);
        let seconds = days * SECONDS_PER_DAY
            + i64::from(civil.hour) * 3600
            + i64::from(civil.minute) * 60
            + i64::from(civil.second);
        Micros(seconds * MICROS_PER_SECOND + i64::from(civil.micros))
    }

    /// T-env: `2026-01-01T00:00:01.250000Z`, always six digits (contract 0.2).
    pub fn format_env(self) -> String {
        String::from_utf8(self.env_bytes().to_vec()).expect("a formatted timestamp is ASCII")
    }

    /// T-env as 27 bytes, without an allocation. Years outside 0..=9999 are clamped.
    pub fn env_bytes(self) -> [u8; 27] {
        let mut out = *b"0000-00-00T00:00:00.000000Z";
        let civil = self.civil();
        put_digits(&mut out[0..4], civil.year.clamp(0, 9999) as u32);
        put_digits(&mut out[5..7], civil.month);
        put_digits(&mut out[8..10], civil.day);
        put_digits(&mut out[11..13], civil.hour);
        put_digits(&mut out[14..16], civil.minute);
        put_digits(&mut out[17..19], civil.second);
        put_digits(&mut out[20..26], civil.micros);
        out
    }

    /// T-off: `2026-01-31T06:57:31.123456+00:00`; no fraction when it is zero (contract 0.2).
    pub fn format_off(self) -> String {
        self.format_with("+00:00")
    }

    /// Appends T-off, without an allocation.
    pub fn push_off(self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.naive_bytes(&mut [0; 27]));
        out.extend_from_slice(b"+00:00");
    }

    /// T-mod: ISO with `Z`, six digits or none (contract 0.2).
    pub fn format_mod(self) -> String {
        self.format_with("Z")
    }

    /// T-naive: ISO without a zone, no fraction when it is zero (contract 0.2).
    pub fn format_naive(self) -> String {
        self.format_with("")
    }

    /// `YYYYMMDDTHHMMSSZ`, the tail of a platform run id (contract 1.1).
    pub fn format_compact(self) -> String {
        let c = self.civil();
        format!(
            "{:04}{:02}{:02}T{:02}{:02}{:02}Z",
            c.year, c.month, c.day, c.hour, c.minute, c.second
        )
    }

    fn format_with(self, zone: &str) -> String {
        let mut env = [0; 27];
        let kept = std::str::from_utf8(self.naive_bytes(&mut env));
        format!("{}{zone}", kept.expect("a formatted timestamp is ASCII"))
    }

    /// T-naive in front of `buffer`.
    fn naive_bytes(self, buffer: &mut [u8; 27]) -> &[u8] {
        *buffer = self.env_bytes();
        let has_fraction = self.0.rem_euclid(MICROS_PER_SECOND) != 0;
        &buffer[..if has_fraction { 26 } else { 19 }]
    }

    /// Reads any ISO-8601 form the contract meets: `Z`, an offset or no zone (then UTC), `T` or a
    /// space, and a fraction of any length (cut to microseconds). Regression T14.
    pub fn parse_any(text: &str) -> Result<Micros, TimeTextError> {
        parse_bytes(text.as_bytes()).ok_or_else(|| TimeTextError {
            text: text.chars().take(64).collect(),
        })
    }

    /// Reads exactly T-env (six digits and `Z`); anything else is `None`.
    pub fn parse_env(text: &[u8]) -> Option<Micros> {
        if !is_env_shape(text) {
            return None;
        }
        let number = |places: Range<usize>| {
            let digits = text[places].iter();
            digits.fold(0, |sum, digit| sum * 10 + u32::from(digit - b'0'))
        };
        let civil = Civil {
            year: i64::from(number(0..4)),
            month: number(5..7),
            day: number(8..10),
            hour: number(11..13),
            minute: number(14..16),
            second: number(17..19),
            micros: number(20..26),
        };
        civil.is_valid().then(|| Micros::from_civil(civil))
    }
}

impl fmt::Display for Micros {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.format_off())
    }
}

/// True when the text has the shape of T-env; the calendar is not checked (contract 2.1).
pub fn is_env_shape(text: &[u8]) -> bool {
    let Ok(text) = <&[u8; 27]>::try_from(text) else {
        return false;
    };
    // Without a branch for each byte: a byte is as wanted when it is not far above the least one allowed.
    let allowed = ENV_LEAST.iter().zip(&ENV_SPAN);
    text.iter()
        .zip(allowed)
        .fold(true, |fits, (byte, (least, span))| {
            fits & (byte.wrapping_sub(*least) <= *span)
        })
}

/// The least byte at each place of T-env.
const ENV_LEAST: [u8; 27] = *b"0000-00-00T00:00:00.000000Z";

/// How far a byte may be above the least: nine for a digit, nothing for anything else.
const ENV_SPAN: [u8; 27] = {
    let mut span = [0; 27];
    let mut place = 0;
    while place < span.len() {
        if ENV_LEAST[place] == b'0' {
            span[place] = 9;
        }
        place += 1;
    }
    span
};

fn put_digits(out: &mut [u8], mut value: u32) {
    for slot in out.iter_mut().rev() {
        *slot = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

fn parse_bytes(text: &[u8]) -> Option<Micros> {
    let mut cursor = Cursor { text, at: 0 };
    let year = i64::from(cursor.digits(4)?);
    cursor.literal(b'-')?;
    let month = cursor.digits(2)?;
    cursor.literal(b'-')?;
    let day = cursor.digits(2)?;
    cursor.one_of(b"T ")?;
    let hour = cursor.digits(2)?;
    cursor.literal(b':')?;
    let minute = cursor.digits(2)?;
    cursor.literal(b':')?;
    let second = cursor.digits(2)?;
    let micros = cursor.fraction()?;
    let offset_seconds = cursor.zone()?;
    let civil = Civil {
        year,
        month,
        day,
        hour,
        minute,
        second,
        micros,
    };
    if !civil.is_valid() {
        return None;
    }
    let local = Micros::from_civil(civil);
    Some(Micros(local.0 - offset_seconds * MICROS_PER_SECOND))
}

struct Cursor<'a> {
    text: &'a [u8],
    at: usize,
}

impl Cursor<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn digits(&mut self, count: usize) -> Option<u32> {
        let part = self.text.get(self.at..self.at + count)?;
        self.at += count;
        part.iter().try_fold(0u32, |sum, byte| {
            byte.is_ascii_digit()
                .then(|| sum * 10 + u32::from(byte - b'0'))
        })
    }

    fn literal(&mut self, want: u8) -> Option<()> {
        self.one_of(&[want])
    }

    fn one_of(&mut self, wanted: &[u8]) -> Option<()> {
        let found = wanted.contains(&self.peek()?);
        self.at += 1;
        found.then_some(())
    }

    fn fraction(&mut self) -> Option<u32> {
        if self.peek() != Some(b'.') {
            return Some(0);
        }
        self.at += 1;
        let mut micros = 0;
        let mut places = 0;
        while let Some(byte) = self.peek().filter(u8::is_ascii_digit) {
            if places < 6 {
                micros = micros * 10 + u32::from(byte - b'0');
            }
            places += 1;
            self.at += 1;
        }
        if places == 0 {
            return None;
        }
        Some(micros * 10u32.pow(6u32.saturating_sub(places)))
    }

    /// Seconds east of UTC; the text must end here.
    fn zone(&mut self) -> Option<i64> {
        let rest = &self.text[self.at..];
        match rest {
            [] | [b'Z' | b'z'] => Some(0),
            [sign @ (b'+' | b'-'), tail @ ..] => {
                let mut tail = Cursor { text: tail, at: 0 };
                let hours = i64::from(tail.digits(2)?);
                if tail.peek() == Some(b':') {
                    tail.at += 1;
                }
                let minutes = if tail.peek().is_some() {
                    i64::from(tail.digits(2)?)
                } else {
                    0
                };
                if tail.peek().is_some() || hours > 23 || minutes > 59 {
                    return None;
                }
                let seconds = hours * 3600 + minutes * 60;
                Some(if *sign == b'-' { -seconds } else { seconds })
            }
            _ => None,
        }
    }
}

fn days_in_month(year: i64, month: u32) -> u32 {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01, counting years from March so that the leap day is the last of a year.
fn days_from_civil(year: i64, month: u32, day: u32) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let month_from_march = i64::from((month + 9) % 12);
    let day_of_year = (153 * month_from_march + 2) / 5 + i64::from(day) - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

fn civil_from_days(days: i64) -> (i64, u32, u32) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = (day_of_year - (153 * month_from_march + 2) / 5 + 1) as u32;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    } as u32;
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_four_formats_differ_as_the_contract_says() {
        let whole = Micros::parse_any("2026-01-01T00:00:00Z").unwrap();
        assert_eq!(whole.format_env(), "2026-01-01T00:00:00.000000Z");
        assert_eq!(whole.format_off(), "2026-01-01T00:00:00+00:00");
        assert_eq!(whole.format_mod(), "2026-01-01T00:00:00Z");
        assert_eq!(whole.format_naive(), "2026-01-01T00:00:00");
        let part = Micros(whole.0 + 123_456);
        assert_eq!(part.format_off(), "2026-01-01T00:00:00.123456+00:00");
        assert_eq!(part.format_mod(), "2026-01-01T00:00:00.123456Z");
        assert_eq!(part.format_compact(), "20260101T000000Z");
    }

    #[test]
    fn every_input_form_becomes_six_digits_and_z() {
        for text in [
            "2026-01-01T00:00:01.25Z",
            "2026-01-01T00:00:01.250000+00:00",
            "2026-01-01T01:00:01.25+01:00",
            "2025-12-31T19:00:01.25-0500",
            "2026-01-01 00:00:01.250",
            "2026-01-01T00:00:01.2500009Z",
        ] {
            assert_eq!(
                Micros::parse_any(text).unwrap().format_env(),
                "2026-01-01T00:00:01.250000Z",
                "{text}"
            );
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "",
            "2026-13-01T00:00:00Z",
            "2026-02-29T00:00:00Z",
            "2026-01-01T24:00:00Z",
            "2026-01-01T00:00:00.Z",
            "2026-01-01T00:00:00+1",
            "2026-01-01",
        ] {
            assert!(Micros::parse_any(text).is_err(), "{text}");
        }
        assert!(is_env_shape(b"2026-99-01T00:00:00.000000Z"));
        assert!(!is_env_shape(b"2026-01-01T00:00:00.00000Z"));
    }

    proptest! {
        #[test]
        fn what_has_the_shape_of_t_env_is_read_as_by_the_tolerant_parser(
            micros in -62_135_596_800_000_000i64..253_402_300_799_999_999,
            place in 0usize..27,
            byte in prop_oneof![0u8..128, Just(b'0'), Just(b'9'), Just(b'Z')],
        ) {
            let mut text = Micros(micros).env_bytes();
            text[place] = byte;
            let shaped = b"dddd-dd-ddTdd:dd:dd.ddddddZ".iter().zip(text).all(|(want, have)| match want {
                b'd' => have.is_ascii_digit(),
                literal => *literal == have,
            });
            prop_assert_eq!(is_env_shape(&text), shaped);
            let tolerant = std::str::from_utf8(&text).ok().and_then(|text| Micros::parse_any(text).ok());
            prop_assert_eq!(Micros::parse_env(&text), tolerant.filter(|_| shaped));
        }

        #[test]
        fn formatting_and_parsing_are_inverse(micros in -62_135_596_800_000_000i64..253_402_300_799_999_999) {
            let instant = Micros(micros);
            prop_assert_eq!(Micros::parse_any(&instant.format_env()).unwrap(), instant);
            prop_assert_eq!(Micros::parse_any(&instant.format_off()).unwrap(), instant);
            prop_assert_eq!(Micros::from_civil(instant.civil()), instant);
        }
    }
}
