//! The notation of durations and sizes.

use std::fmt::Write as _;
use std::time::Duration;

/// Units of time in milliseconds. A duration has them in this order, each at most once.
const TIME: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1000),
    ("ms", 1),
];

/// Units of size in bytes.
const BYTES: [(&str, u64); 7] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1000),
    ("B", 1),
];

/// Parses a duration, whole numbers with units, largest first: "30s", "5m", "1h30m", "250ms", "7d".
pub(super) fn duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut units = TIME.as_slice();
    let mut millis: u64 = 0;
    while !rest.is_empty() || text.is_empty() {
        let (number, after) = leading_number(rest)?;
        let unit_end = after
            .find(|c: char| !c.is_ascii_alphabetic())
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        let index = units.iter().position(|(name, _)| *name == unit)?;
        millis = millis.checked_add(number.checked_mul(units[index].1)?)?;
        units = &units[index + 1..];
        rest = after;
    }
    Some(Duration::from_millis(millis))
}

/// Parses a size into bytes: "512B", "64KiB", "10MB", "1GiB".
pub(super) fn size(text: &str) -> Option<u64> {
    let (number, unit) = leading_number(text)?;
    let (_, factor) = BYTES.iter().find(|(name, _)| *name == unit)?;
    number.checked_mul(*factor)
}

/// Formats a duration as in the file.
pub(super) fn show_duration(duration: Duration) -> String {
    let mut millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let mut text = String::new();
    for (unit, factor) in TIME {
        if millis >= factor {
            let _ = write!(text, "{}{unit}", millis / factor);
            millis %= factor;
        }
    }
    if text.is_empty() { "0s".into() } else { text }
}

/// Formats a size as in the file.
pub(super) fn show_size(bytes: u64) -> String {
    BYTES
        .iter()
        .find(|(_, factor)| bytes >= *factor && bytes.is_multiple_of(*factor))
        .map_or_else(
            || "0B".into(),
            |(unit, factor)| format!("{}{unit}", bytes / factor),
        )
}

/// A regular expression (ECMA 262) for strings that [`duration`] accepts, except that it also matches
/// the empty string.
pub(super) fn duration_pattern() -> String {
    let parts = TIME.map(|(unit, _)| format!("([0-9]+{unit})?"));
    format!("^{}$", parts.concat())
}

/// A regular expression (ECMA 262) for strings that [`size`] accepts.
pub(super) fn size_pattern() -> String {
    format!("^[0-9]+({})$", BYTES.map(|(unit, _)| unit).join("|"))
}

fn leading_number(text: &str) -> Option<(u64, &str)> {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    Some((digits.parse().ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_parsed_and_formatted() {
        for (text, millis) in [
            ("30s", 30_000),
            ("5m", 300_000),
            ("1h30m", 5_400_000),
            ("250ms", 250),
            ("7d", 604_800_000),
            ("1d2h3m4s5ms", 93_784_005),
            ("0s", 0),
        ] {
            let duration = duration(text).unwrap();
            assert_eq!(duration, Duration::from_millis(millis));
            assert_eq!(show_duration(duration), text);
        }
        assert_eq!(duration("90s").map(show_duration).as_deref(), Some("1m30s"));
    }

    #[test]
    fn invalid_durations_are_refused() {
        for text in [
            "",
            "30",
            "s",
            "1.5h",
            "30 s",
            " 30s",
            "30s ",
            "-1s",
            "+1s",
            "30S",
            "30sec",
            "30m1h",
            "1s1s",
            "99999999999999999999s",
            "18446744073709551615d",
            "1h-30m",
            "٣s",
            "1µs",
        ] {
            assert_eq!(duration(text), None, "{text}");
        }
    }

    #[test]
    fn sizes_are_parsed_and_formatted() {
        for (text, bytes) in [
            ("512B", 512),
            ("64KiB", 65_536),
            ("8MiB", 8 << 20),
            ("1GiB", 1 << 30),
            ("10MB", 10_000_000),
            ("0B", 0),
            ("1500B", 1500),
        ] {
            assert_eq!(size(text), Some(bytes));
            assert_eq!(show_size(bytes), text);
        }
        for text in [
            "",
            "8",
            "MiB",
            "8mib",
            "8 MiB",
            "8M",
            "1.5MiB",
            "-1B",
            "18446744073709551615KiB",
        ] {
            assert_eq!(size(text), None, "{text}");
        }
    }
}
