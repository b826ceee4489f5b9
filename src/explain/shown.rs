//! Values of unverified tokens as text: escaped, truncated, and times with their distance from now.

use serde_json::{Map, Value};

use crate::clock::UnixMillis;

/// The longest value shown, in characters.
const MAX_SHOWN: usize = 120;

/// Strings and lists of strings, escaped and truncated; only the type of anything else.
pub(super) fn shown(value: &Value) -> String {
    let text = match value {
        Value::String(text) => format!("{text:?}"),
        Value::Array(list) if list.iter().all(Value::is_string) => {
            let texts: Vec<_> = list.iter().filter_map(Value::as_str).collect();
            format!("{texts:?}")
        }
        Value::Array(_) => "a list with values other than strings".into(),
        Value::Object(_) => "an object".into(),
        Value::Null => "null".into(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
    };
    match text.char_indices().nth(MAX_SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// The named member, or that there is none.
pub(super) fn member(members: &Map<String, Value>, name: &str) -> String {
    let nothing = || format!("no {name}");
    members.get(name).map_or_else(nothing, shown)
}

/// A NumericDate (RFC 7519 §2) in whole seconds, rounded down.
pub(super) fn seconds(value: &Value) -> Option<i64> {
    /// The year 9999; no larger time can be formatted.
    const LATEST: f64 = 253_402_300_799.0;
    if let Some(seconds) = value.as_i64() {
        return Some(seconds);
    }
    let number = value.as_f64().filter(|n| (0.0..=LATEST).contains(n))?;
    #[allow(clippy::cast_possible_truncation)] // Checked above.
    Some(number as i64)
}

/// A time, with its distance from `now`: `2026-11-20T19:10:09.000Z (in 59 min)`.
pub(super) fn time(value: &Value, now: UnixMillis) -> String {
    let Some(seconds) = seconds(value) else {
        return shown(value);
    };
    let at = UnixMillis::from_secs(seconds).to_rfc3339();
    let away = seconds.saturating_sub(now.as_secs());
    match away {
        _ if now == UnixMillis(0) => at,
        0.. => format!("{at} (in {})", duration(away.unsigned_abs())),
        _ => format!("{at} ({} ago)", duration(away.unsigned_abs())),
    }
}

/// A number of seconds in its two largest units: `2 d 3 h`, `59 min`, `40 s`.
pub(super) fn duration(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    let parts = match (days, hours, minutes) {
        (0, 0, 0) => return format!("{seconds} s"),
        (0, 0, m) => [(m, "min"), (seconds % 60, "s")],
        (0, h, m) => [(h, "h"), (m, "min")],
        (d, h, _) => [(d, "d"), (h, "h")],
    };
    let parts = parts.iter().filter(|(number, _)| *number > 0);
    let parts = parts.map(|(number, unit)| format!("{number} {unit}"));
    parts.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn durations_are_shown_in_their_two_largest_units() {
        for (seconds, text) in [
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min"),
            (61, "1 min 1 s"),
            (3600, "1 h"),
            (3661, "1 h 1 min"),
            (86_400 * 2 + 3 * 3600 + 59, "2 d 3 h"),
        ] {
            assert_eq!(duration(seconds), text);
        }
    }

    #[test]
    fn times_may_have_fractions_and_need_not_be_numbers() {
        let now = UnixMillis::from_secs(1_800_000_000);
        assert_eq!(
            time(&json!(1_800_000_060.5), now),
            "2027-01-15T08:01:00.000Z (in 1 min)"
        );
        assert_eq!(
            time(&json!(1.79e9), now),
            "2026-09-21T14:13:20.000Z (115 d 17 h ago)"
        );
        assert_eq!(time(&json!("soon"), now), "\"soon\"");
        assert_eq!(time(&json!(-1.5), now), "-1.5");
    }

    #[test]
    fn values_are_escaped_and_truncated() {
        assert_eq!(
            shown(&json!("a\u{1b}[31m\u{202e}\n")),
            "\"a\\u{1b}[31m\\u{202e}\\n\""
        );
        assert_eq!(
            shown(&json!("x".repeat(500))).chars().count(),
            MAX_SHOWN + 1
        );
        assert_eq!(shown(&json!({"a": "b"})), "an object");
    }
}
