//! Request targets (RFC 9112 §3.2): origin-form, and `*` for OPTIONS.

use crate::gateway::reason::Reason;
use crate::gateway::rejection::Rejection;

use super::bad_request;

/// The visible ASCII characters that a target must not contain.
const FORBIDDEN: &[u8] = b"#\"<>\\`";

/// All other visible ASCII characters, as a table, because every byte of every target is looked
/// up.
static ALLOWED: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = b'!';
    while byte <= b'~' {
        table[byte as usize] = true;
        byte += 1;
    }
    let mut at = 0;
    while at < FORBIDDEN.len() {
        table[FORBIDDEN[at] as usize] = false;
        at += 1;
    }
    table
};

/// Accepts only targets that all parsers on the way interpret in the same way, so that the path
/// that was routed and signed is the path that is served. `limit` is in bytes.
pub(super) fn check(target: &[u8], options: bool, limit: usize) -> Result<(), Rejection> {
    if target.len() > limit {
        return Err(Reason::UrlTooLong.into());
    }
    if options && target == b"*" {
        return Ok(());
    }
    // A target that begins with two slashes is a network-path reference (RFC 3986 §4.2) for
    // software that resolves it as a URL reference.
    if target.first() != Some(&b'/') || target.get(1) == Some(&b'/') {
        return Err(bad_request("the target is not in origin-form"));
    }
    // pingora would percent-encode angle brackets and quotes, so that the signed target would
    // differ from the one received, and responds to a backtick with an empty response. RFC 3986
    // allows none of these characters.
    if !target.iter().all(|b| ALLOWED[usize::from(*b)]) {
        return Err(bad_request(
            "the target contains a character that is not allowed in a URL",
        ));
    }
    let path = target.split(|b| *b == b'?').next().unwrap_or_default();
    if has_dot_segment(path) {
        return Err(bad_request("the path contains a dot segment"));
    }
    Ok(())
}

/// Whether any parser might interpret a segment as `.` or `..`, including percent-encoded dots,
/// encoded slashes or backslashes as separators, and segments followed by `;parameters`.
fn has_dot_segment(path: &[u8]) -> bool {
    if memchr::memchr2(b'.', b'%', path).is_none() {
        return false;
    }
    // The number of dots in the current segment, as long as it consists only of dots.
    let mut dots = Some(0_u32);
    let mut rest = path;
    while let Some((byte, after)) = next_decoded(rest) {
        rest = after;
        dots = match (byte, dots) {
            (b'/' | b'\\' | b';', Some(1 | 2)) => return true,
            (b'/' | b'\\', _) => Some(0),
            (b'.', Some(count)) => Some(count.saturating_add(1)),
            _ => None,
        };
    }
    matches!(dots, Some(1 | 2))
}

/// Returns the next byte, percent-decoded if it is a valid escape, and the rest.
fn next_decoded(bytes: &[u8]) -> Option<(u8, &[u8])> {
    if let [b'%', high, low, rest @ ..] = bytes
        && let (Some(high), Some(low)) = (hex(*high), hex(*low))
    {
        return Some((high * 16 + low, rest));
    }
    bytes.split_first().map(|(byte, rest)| (*byte, rest))
}

/// Returns the value of a hexadecimal digit.
pub(in crate::proxy) const fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_dot_segments_in_every_encoding() {
        for path in [
            "/.",
            "/..",
            "/./",
            "/../",
            "/a/..",
            "/a/../b",
            "/a/./b",
            "/%2e",
            "/%2E%2e/x",
            "/.%2e",
            "/%2e./b",
            "/a/..;x=1/b",
            "/a/..%3bx",
            "/a%2f..%2fb",
            "/a%2F..",
            "/a%5c..%5Cb",
            "/.;/",
        ] {
            assert!(has_dot_segment(path.as_bytes()), "{path}");
        }
    }

    #[test]
    fn dots_in_other_segments_are_not_dot_segments() {
        for path in [
            "/",
            "/...",
            "/.well-known/x",
            "/a.b/c.",
            "/..a/b",
            "/a../b",
            "/%2e%2e%2e/",
            "/a;..",
            "/x/public%2Flogs%2F.hidden",
            "/%252e%252e/",
            "/a%",
            "/a%2",
            "/%zz",
            "/a/b..;c",
        ] {
            assert!(!has_dot_segment(path.as_bytes()), "{path}");
        }
    }
}
