//! Times in tokens.

use serde_json::Value;

use crate::clock::UnixMillis;

/// The last second of the year 9999; later times are refused as invalid.
const LATEST: u64 = 253_402_300_799;

/// How a fraction of a millisecond is rounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounding {
    /// To the earlier millisecond, so that a token does not live longer than it says.
    Down,
    /// To the later millisecond, so that a token is not accepted earlier than it says.
    Up,
}

/// A NumericDate (RFC 7519 §2): a JSON number of seconds since the epoch, with or without a fraction
/// or an exponent. `None` for anything else, and for times before the epoch or after the year 9999.
pub fn numeric_date(value: &Value, rounding: Rounding) -> Option<UnixMillis> {
    let Value::Number(number) = value else {
        return None;
    };
    if let Some(seconds) = number.as_u64() {
        let seconds = Some(seconds).filter(|seconds| *seconds <= LATEST)?;
        return i64::try_from(seconds).ok().map(UnixMillis::from_secs);
    }
    // Numbers with a fraction or an exponent, whose error is less than a thousandth of a
    // millisecond, and negative ones.
    let seconds = number.as_f64()?;
    #[allow(clippy::cast_precision_loss)] // LATEST is less than 2^53.
    let in_range = seconds.is_sign_positive() && seconds < (LATEST + 1) as f64;
    if !in_range {
        return None;
    }
    // Exact: the parts of a number have no more digits than the number itself.
    let (whole, fraction) = (seconds.trunc(), seconds.fract());
    let millis = match rounding {
        Rounding::Down => (fraction * 1000.0).floor(),
        Rounding::Up => (fraction * 1000.0).ceil(),
    };
    #[allow(clippy::cast_possible_truncation)] // Both are whole numbers in the range above.
    let (whole, millis) = (whole as i64, millis as i64);
    Some(UnixMillis(whole * 1000 + millis))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, rounding: Rounding) -> Option<i64> {
        let value: Value = serde_json::from_str(text).unwrap();
        numeric_date(&value, rounding).map(|time| time.0)
    }

    #[test]
    fn numbers_with_fractions_and_exponents_are_read_exactly() {
        for (text, millis) in [
            ("0", 0),
            ("0.0", 0),
            ("1700000000", 1_700_000_000_000),
            ("1700000000.0", 1_700_000_000_000),
            ("1.7e9", 1_700_000_000_000),
            ("1.7E+9", 1_700_000_000_000),
            ("17e8", 1_700_000_000_000),
            ("17000000000e-1", 1_700_000_000_000),
            ("1700000000.5", 1_700_000_000_500),
            ("1700000000.25", 1_700_000_000_250),
            ("1.7000000005e9", 1_700_000_000_500),
            ("253402300799", 253_402_300_799_000),
            ("2.53402300799e11", 253_402_300_799_000),
        ] {
            for rounding in [Rounding::Down, Rounding::Up] {
                assert_eq!(read(text, rounding), Some(millis), "{text}");
            }
        }
    }

    #[test]
    fn fractions_of_a_millisecond_never_make_a_token_live_longer() {
        for (text, down, up) in [
            ("1700000000.0004", 0, 1),
            ("1700000000.9996", 999, 1000),
            ("1700000000.123", 122, 124),
            ("1e-9", -1_700_000_000_000, -1_699_999_999_999),
        ] {
            let at = |offset: i64| 1_700_000_000_000 + offset;
            let (early, late) = (
                read(text, Rounding::Down).unwrap(),
                read(text, Rounding::Up).unwrap(),
            );
            assert!((at(down)..=at(up)).contains(&early), "{text}: {early}");
            assert!((early..=at(up)).contains(&late), "{text}: {late}");
            assert!(late - early <= 1, "{text}");
        }
    }

    #[test]
    fn anything_else_is_not_a_time() {
        for text in [
            "-1",
            "-0.5",
            "-0.0",
            "-1.7e9",
            "1e300",
            "1e12",
            "253402300800",
            "2.534023008e11",
            "18446744073709551615",
            "18446744073709551616",
            "-9223372036854775808",
            "\"1700000000\"",
            "\"2027-01-15T08:00:00Z\"",
            "true",
            "null",
            "[1700000000]",
            "{}",
        ] {
            for rounding in [Rounding::Down, Rounding::Up] {
                assert_eq!(read(text, rounding), None, "{text}");
            }
        }
    }
}
