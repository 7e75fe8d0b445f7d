//! Query strings and the texts in them.

use crate::Invalid;
use base64::Engine;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use spanloom_model::TraceId;
use std::num::IntErrorKind;

/// Parameters of a URL, in order; keys may repeat.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Params(Vec<(String, String)>);

impl Params {
    /// Most parameters that are read; further ones are ignored.
    const MOST: usize = 1000;

    /// Parses what follows the `?`. Escapes that are not hexadecimal stay as
    /// they are, bytes that are not UTF-8 become U+FFFD.
    pub fn parse(query: &str) -> Self {
        Self(
            query
                .split('&')
                .filter(|part| !part.is_empty())
                .take(Self::MOST)
                .map(|part| {
                    let (key, value) = part.split_once('=').unwrap_or((part, ""));
                    (unescape(key, true), unescape(value, true))
                })
                .collect(),
        )
    }

    /// First value of a key, unless it is empty.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.first(key).filter(|v| !v.is_empty())
    }

    /// First value of a key, which may be empty.
    pub fn first(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// All values of a key.
    pub fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// A whole number under a key.
    pub fn int(&self, key: &str) -> Result<Option<i64>, Invalid> {
        let Some(text) = self.get(key) else { return Ok(None) };
        let wrong = |e: std::num::ParseIntError| {
            // Go's texts, which Jaeger answers.
            let why = match e.kind() {
                IntErrorKind::PosOverflow | IntErrorKind::NegOverflow => "value out of range",
                _ => "invalid syntax",
            };
            Invalid(format!("unable to parse param '{key}': strconv.ParseInt: parsing {text:?}: {why}"))
        };
        text.parse().map(Some).map_err(wrong)
    }

    /// A truth value under a key, false if it is not there.
    pub fn flag(&self, key: &str) -> Result<bool, Invalid> {
        let wrong = |e| Invalid(format!("unable to parse param '{key}': {e}"));
        self.get(key).map_or(Ok(false), |text| parse_go_bool(text).map_err(wrong))
    }
}

/// A truth value as Go reads one, and Go's error.
pub fn parse_go_bool(text: &str) -> Result<bool, Invalid> {
    match text {
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        _ => Err(Invalid(format!("strconv.ParseBool: parsing {text:?}: invalid syntax"))),
    }
}

/// Undoes percent-encoding; `plus`: `+` is a space.
pub(crate) fn unescape(text: &str, plus: bool) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while let Some(&b) = bytes.get(i) {
        let hex = |at: usize| bytes.get(at).and_then(|c| (*c as char).to_digit(16));
        match (b, hex(i + 1), hex(i + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                i += 2;
            }
            (b'+', ..) if plus => out.push(b' '),
            _ => out.push(b),
        }
        i += 1;
    }
    String::from_utf8(out).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned())
}

impl Params {
    /// Undoes the percent-encoding of a path segment.
    pub fn unescape_path(segment: &str) -> String {
        unescape(segment, false)
    }
}

/// A trace id as Jaeger takes it: 1 to 32 hexadecimal digits, else base64 of up
/// to 16 bytes in either alphabet, padded or not.
pub fn parse_trace_id(text: &str) -> Result<TraceId, Invalid> {
    let wrong = match TraceId::parse_hex(text) {
        Ok(id) => return Ok(id),
        Err(wrong) => wrong,
    };
    // 24 characters of base64 hold 16 bytes with padding.
    if text.len() <= 24 {
        for alphabet in [STANDARD, URL_SAFE] {
            let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
            if let Ok(bytes) = GeneralPurpose::new(&alphabet, config).decode(text)
                && matches!(bytes.len(), 8 | 16)
            {
                return Ok(TraceId::from_be_slice(&bytes));
            }
        }
    }
    Err(Invalid(wrong.to_string()))
}

/// A duration as Go writes it (`1.5ms`, `1h30m`, `-2us`), in nanoseconds.
pub fn parse_go_duration(text: &str) -> Result<i64, Invalid> {
    let wrong = || Invalid(format!("time: invalid duration {text:?}"));
    let (negative, mut rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Ok(0);
    }
    let mut total = 0i128;
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, after) = rest.split_at(digits);
        let unit_len = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, next) = after.split_at(unit_len);
        if number.is_empty() {
            return Err(wrong());
        }
        let scale: i128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            "" => return Err(Invalid(format!("time: missing unit in duration {text:?}"))),
            _ => return Err(Invalid(format!("time: unknown unit {unit:?} in duration {text:?}"))),
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') || whole.len() > 19 {
            return Err(wrong());
        }
        let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| wrong())? };
        total += whole * scale;
        // More digits than nanoseconds in an hour have cannot change the result.
        let fraction = &fraction[..fraction.len().min(18)];
        if !fraction.is_empty() {
            let parts: i128 = fraction.parse().map_err(|_| wrong())?;
            total += parts * scale / 10i128.pow(fraction.len() as u32);
        }
        rest = next;
    }
    let total = if negative { -total } else { total };
    i64::try_from(total).map_err(|_| wrong())
}

/// A time as RFC 3339 writes it, in nanoseconds since the Unix epoch. A space
/// before the offset is taken for the `+` that an unescaped URL turned into one.
pub fn parse_rfc3339(text: &str) -> Result<i64, Invalid> {
    read_rfc3339(text).ok_or_else(|| {
        Invalid(format!("parsing time {text:?} as \"2006-01-02T15:04:05.999999999Z07:00\": not such a time"))
    })
}

fn read_rfc3339(text: &str) -> Option<i64> {
    fn number(bytes: &[u8]) -> Option<i64> {
        let digits = std::str::from_utf8(bytes).ok()?;
        digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok())?
    }
    let b = text.as_bytes();
    let at = |from: usize, to: usize| b.get(from..to).and_then(number);
    let is = |i: usize, any: &[u8]| b.get(i).is_some_and(|c| any.contains(c));
    if !(is(4, b"-") && is(7, b"-") && is(10, b"Tt ") && is(13, b":") && is(16, b":")) {
        return None;
    }
    let (year, month, day) = (at(0, 4)?, at(5, 7)?, at(8, 10)?);
    let (hour, minute, second) = (at(11, 13)?, at(14, 16)?, at(17, 19)?);
    let leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    let days = [31, if leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let longest = days.get(usize::try_from(month - 1).ok()?)?;
    if !(1..=*longest).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let mut rest = b.get(19..)?;
    let mut nanos = 0;
    if rest.first() == Some(&b'.') {
        let len = rest[1..].iter().take_while(|c| c.is_ascii_digit()).count();
        if len == 0 {
            return None;
        }
        for i in 0..9 {
            let digit = if i < len { i64::from(rest[1 + i] - b'0') } else { 0 };
            nanos = nanos * 10 + digit;
        }
        rest = &rest[1 + len..];
    }
    let offset = match rest {
        [b'Z' | b'z'] => 0,
        [sign @ (b'+' | b'-' | b' '), h1, h2, b':', m1, m2] => {
            let (h, m) = (number(&[*h1, *h2])?, number(&[*m1, *m2])?);
            if h > 23 || m > 59 {
                return None;
            }
            let seconds = h * 3600 + m * 60;
            if *sign == b'-' { -seconds } else { seconds }
        }
        _ => return None,
    };
    // Days since 1970-01-01 in the proleptic Gregorian calendar; years begin in March.
    let y = if month <= 2 { year - 1 } else { year };
    let (era, shifted) = (y.div_euclid(400), (month + 9) % 12);
    let of_era = y.rem_euclid(400);
    let of_year = (153 * shifted + 2) / 5 + day - 1;
    let day_number = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468;
    let seconds = day_number * 86_400 + hour * 3600 + minute * 60 + second - offset;
    seconds.checked_mul(1_000_000_000)?.checked_add(nanos)
}

/// A time as RFC 3339 writes it, in UTC, with as many digits of a second as it
/// needs.
pub fn print_rfc3339(nanos: i64) -> String {
    let (seconds, rest) = (nanos.div_euclid(1_000_000_000), nanos.rem_euclid(1_000_000_000));
    let (day, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // The way back of `read_rfc3339`.
    let z = day + 719_468;
    let (era, of_era) = (z.div_euclid(146_097), z.rem_euclid(146_097));
    let y = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * y + y / 4 - y / 100);
    let shifted = (5 * of_year + 2) / 153;
    let date = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = y + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let fraction = match rest {
        0 => String::new(),
        _ if rest % 1_000_000 == 0 => format!(".{:03}", rest / 1_000_000),
        _ if rest % 1_000 == 0 => format!(".{:06}", rest / 1_000),
        _ => format!(".{rest:09}"),
    };
    format!("{year:04}-{month:02}-{date:02}T{hour:02}:{minute:02}:{second:02}{fraction}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_printed_time_is_read_as_the_same() {
        for (nanos, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (1_768_471_200_123_000_000, "2026-01-15T10:00:00.123Z"),
            (951_782_400_000_000_001, "2000-02-29T00:00:00.000000001Z"),
            (-1_000_000_000, "1969-12-31T23:59:59Z"),
            (1_767_225_599_999_999_000, "2025-12-31T23:59:59.999999Z"),
        ] {
            assert_eq!(print_rfc3339(nanos), text);
            assert_eq!(parse_rfc3339(text).unwrap(), nanos);
        }
    }

    #[test]
    fn query_strings_are_decoded_once() {
        let p = Params::parse("a=1+2&b=%7B%22k%22%3A1%7D&a=3&c&%zz=%4&d=%2B");
        assert_eq!(p.all("a").collect::<Vec<_>>(), ["1 2", "3"]);
        assert_eq!(p.get("b"), Some("{\"k\":1}"));
        assert_eq!((p.first("c"), p.get("c")), (Some(""), None));
        assert_eq!((p.get("%zz"), p.get("d")), (Some("%4"), Some("+")));
        assert_eq!(Params::unescape_path("a+b%20c%2Fd"), "a+b c/d");
    }

    #[test]
    fn go_durations_have_units_and_fractions() {
        for (text, nanos) in [
            ("1.5ms", 1_500_000),
            ("100us", 100_000),
            ("7µs", 7_000),
            ("1h30m", 5_400_000_000_000),
            ("-2s", -2_000_000_000),
            ("0", 0),
            (".5s", 500_000_000),
            ("1.000000001s", 1_000_000_001),
        ] {
            assert_eq!(parse_go_duration(text), Ok(nanos), "{text}");
        }
        for text in ["", "5", "oops", "1x", ".s", "1..2s", "-", "99999999999h"] {
            assert!(parse_go_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn times_have_offsets_and_nanoseconds() {
        let base = 1_768_471_200_000_000_000;
        for (text, nanos) in [
            ("2026-01-15T10:00:00Z", base),
            ("2026-01-15T11:30:00+01:30", base),
            ("2026-01-15T11:30:00 01:30", base),
            ("2026-01-15T09:00:00.123456789-01:00", base + 123_456_789),
            ("2026-01-15T10:00:00.5Z", base + 500_000_000),
            ("1970-01-01T00:00:00Z", 0),
            ("2024-02-29T00:00:00Z", 1_709_164_800_000_000_000),
        ] {
            assert_eq!(parse_rfc3339(text), Ok(nanos), "{text}");
        }
        for text in [
            "",
            "now",
            "2026-13-01T00:00:00Z",
            "2026-02-29T00:00:00Z",
            "2026-01-15T10:00:00",
            "2026-01-15T10:00:00.Z",
        ] {
            assert!(parse_rfc3339(text).is_err(), "{text}");
        }
    }

    #[test]
    fn trace_ids_are_hexadecimal_or_base64() {
        let id = TraceId::from_halves(0x0102_0304_0506_0708, 0x090a_0b0c_0d0e_0f10);
        for text in ["0102030405060708090a0b0c0d0e0f10", "AQIDBAUGBwgJCgsMDQ4PEA==", "AQIDBAUGBwgJCgsMDQ4PEA"]
        {
            assert_eq!(parse_trace_id(text), Ok(id), "{text}");
        }
        assert_eq!(parse_trace_id("1f"), Ok(TraceId(0x1f)));
        for text in ["", "zz", "xyz!", "0102030405060708090a0b0c0d0e0f1011"] {
            assert!(parse_trace_id(text).is_err(), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_is_too_strange(text in ".*") {
            let _ = (Params::parse(&text), parse_go_duration(&text), parse_rfc3339(&text), parse_trace_id(&text));
        }
    }
}
