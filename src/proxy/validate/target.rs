//! Request targets (RFC 9112 §3.2): origin-form, absolute-form, and `*` for OPTIONS.

use std::ops::Range;

use bytes::Bytes;
use http::Method;

use crate::gateway::reason::Reason;
use crate::gateway::rejection::Rejection;

use super::bad_request;
use super::fields::is_authority;

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

/// How a target is written (RFC 9112 §3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// A path with or without a query.
    Origin,
    /// A URL of scheme `http` or `https`.
    Absolute,
    /// `*`, of OPTIONS only.
    Asterisk,
}

/// Checks the target of an HTTP/1 request. Applies the rules of [`check_origin_form`] to the path
/// and query of an absolute-form target. `limit` is the maximum length of the whole target, in bytes.
pub(super) fn check_http1(target: &[u8], options: bool, limit: usize) -> Result<Form, Rejection> {
    let Some(authority) = authority(target) else {
        return check_origin_form(target, options, limit);
    };
    check_length(target, limit)?;
    let after = target.get(authority.end..).unwrap_or_default();
    // Refuses userinfo and empty hosts as well (RFC 9110 §4.2.1, §4.2.4).
    if !target.get(authority).is_some_and(is_authority) {
        return Err(bad_request("malformed authority in the target"));
    }
    if matches!(after.first(), None | Some(b'?')) {
        check_characters(after)?;
    } else {
        check_path_and_query(after)?;
    }
    Ok(Form::Absolute)
}

/// Accepts only targets that all parsers on the way interpret in the same way, so that the path
/// that was routed and signed is the path that is served. `limit` is in bytes.
pub(super) fn check_origin_form(
    target: &[u8],
    options: bool,
    limit: usize,
) -> Result<Form, Rejection> {
    check_length(target, limit)?;
    if options && target == b"*" {
        return Ok(Form::Asterisk);
    }
    check_path_and_query(target)?;
    Ok(Form::Origin)
}

fn check_length(target: &[u8], limit: usize) -> Result<(), Rejection> {
    if target.len() > limit {
        return Err(Reason::UrlTooLong.into());
    }
    Ok(())
}

fn check_path_and_query(target: &[u8]) -> Result<(), Rejection> {
    // A target that begins with two slashes is a network-path reference (RFC 3986 §4.2) for
    // software that resolves it as a URL reference.
    if target.first() != Some(&b'/') || target.get(1) == Some(&b'/') {
        return Err(bad_request("the target is not in origin-form"));
    }
    check_characters(target)?;
    let path = target.split(|b| *b == b'?').next().unwrap_or_default();
    if has_dot_segment(path) {
        return Err(bad_request("the path contains a dot segment"));
    }
    Ok(())
}

/// pingora would percent-encode angle brackets and quotes, so that the signed target would differ
/// from the one received, and responds to a backtick with an empty response. RFC 3986 allows none
/// of these characters.
fn check_characters(target: &[u8]) -> Result<(), Rejection> {
    if !target.iter().all(|b| ALLOWED[usize::from(*b)]) {
        return Err(bad_request(
            "the target contains a character that is not allowed in a URL",
        ));
    }
    Ok(())
}

/// Returns the place of the authority in a target in absolute-form; `None` for other targets.
fn authority(target: &[u8]) -> Option<Range<usize>> {
    const SCHEMES: [&[u8]; 2] = [b"http://", b"https://"];
    if target.first() == Some(&b'/') {
        return None;
    }
    let begins = |scheme: &&&[u8]| {
        let begin = target.get(..scheme.len());
        begin.is_some_and(|begin| begin.eq_ignore_ascii_case(scheme))
    };
    let start = SCHEMES.iter().find(begins)?.len();
    let mut rest = target.iter().skip(start);
    let length = rest.position(|b| matches!(b, b'/' | b'?' | b'#'));
    let end = length.map_or(target.len(), |length| start + length);
    Some(start..end)
}

/// Splits a target that has passed [`check_http1`] into the authority of an absolute-form target and what
/// is routed, signed and sent upstream: path and query, or `*`. The authority takes the place of
/// `Host` (RFC 9112 §3.2.2). An empty path is `/`, and `*` for OPTIONS without a query (§3.2.1,
/// §3.2.4).
pub(in crate::proxy) fn split_target(target: &Bytes, method: &Method) -> (Option<Bytes>, Bytes) {
    let Some(authority) = authority(target) else {
        return (None, target.clone());
    };
    let after = target.slice(authority.end..);
    let origin = match after.first() {
        Some(b'/') => after,
        None if *method == Method::OPTIONS => Bytes::from_static(b"*"),
        None => Bytes::from_static(b"/"),
        Some(_) => [b"/", &*after].concat().into(),
    };
    (Some(target.slice(authority)), origin)
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

    const LIMIT: usize = 100;

    fn split(target: &'static str, method: &Method) -> (Option<String>, String) {
        let options = *method == Method::OPTIONS;
        assert!(
            check_http1(target.as_bytes(), options, LIMIT).is_ok(),
            "{target} is refused"
        );
        let (authority, origin) = split_target(&Bytes::from_static(target.as_bytes()), method);
        let text = |bytes: Bytes| String::from_utf8(bytes.to_vec()).unwrap();
        (authority.map(text), text(origin))
    }

    #[test]
    fn absolute_form_is_split_into_authority_and_origin_form() {
        for (target, authority, origin) in [
            ("http://a/b?c", "a", "/b?c"),
            ("https://a.example:8443/b", "a.example:8443", "/b"),
            ("HTTP://A/", "A", "/"),
            ("hTTps://a/", "a", "/"),
            ("http://[::1]:80/x", "[::1]:80", "/x"),
            ("http://a", "a", "/"),
            ("http://a:1", "a:1", "/"),
            ("http://a?x", "a", "/?x"),
            ("http://a?/../x", "a", "/?/../x"),
            ("http://a?", "a", "/?"),
            ("http://a/?http://b/", "a", "/?http://b/"),
            ("http://a/http://b/", "a", "/http://b/"),
            ("http://a/%2F%2F", "a", "/%2F%2F"),
            ("http://a.:80/u@b", "a.:80", "/u@b"),
        ] {
            let expected = (Some(authority.to_owned()), origin.to_owned());
            assert_eq!(split(target, &Method::GET), expected, "{target}");
            assert!(check_origin_form(origin.as_bytes(), false, LIMIT).is_ok());
            // The parser of `http` and `h2` reads the same.
            let uri: http::Uri = target.parse().unwrap();
            assert_eq!(uri.authority().unwrap(), authority, "{target}");
            assert_eq!(uri.path_and_query().unwrap().to_string(), origin);
        }
    }

    #[test]
    fn other_forms_have_no_authority() {
        for target in ["/", "/a?b", "/http://a/", "/a@b"] {
            let expected = (None, target.to_owned());
            assert_eq!(split(target, &Method::GET), expected);
            assert_eq!(split(target, &Method::OPTIONS), expected);
        }
        assert_eq!(split("*", &Method::OPTIONS), (None, "*".to_owned()));
    }

    #[test]
    fn options_for_a_whole_server_is_an_asterisk() {
        for (target, origin) in [
            ("http://a", "*"),
            ("http://a:80", "*"),
            ("http://a/", "/"),
            ("http://a?", "/?"),
            ("http://a?x", "/?x"),
        ] {
            assert_eq!(split(target, &Method::OPTIONS).1, origin, "{target}");
        }
    }

    #[test]
    fn absolute_form_is_refused_where_parsers_disagree() {
        for target in [
            // Authority.
            "http:///x",
            "http://",
            "http://?x",
            "http://:80/x",
            "http://a:/x",
            "http://a:b/x",
            "http://a:99999/",
            "http://a:65536/",
            "http://a:-1/",
            "http://a:080000/",
            "http://u@a/",
            "http://u:p@a/",
            "http://@a/",
            "http://a@/",
            "http://a:80@b/",
            "http://a:80:80/",
            "http://a,b/",
            "http://a%2eb/",
            "http://a%00/",
            "http://a..b/",
            "http://.a/",
            "http://a\\b/",
            "http://a\\@b/",
            "http://[::1/",
            "http://::1/",
            "http://[::1]x/",
            "http://[a]/",
            "http://[::1%25eth0]/",
            "http://[v1.a]/",
            "http://a b/",
            "http://a\t/",
            "http://\u{e9}/",
            "http://a;b/",
            "http://*/",
            // Scheme.
            "ftp://a/",
            "file:///x",
            "ws://a/",
            "httpx://a/",
            "http:/a/",
            "http:a/",
            "http:",
            "http",
            "https:/a",
            "://a/",
            "//a/",
            "/\\a",
            "http:\\\\a\\",
            "http//a/",
            "a:443",
            "a",
            "",
            " http://a/",
            "http ://a/",
            "javascript:x",
            "http+unix://a/",
            "urn:x",
            // The rules for path and query.
            "http://a#",
            "http://a/#",
            "http://a#/x",
            "http://a/x#y",
            "http://a?#",
            "http://a//",
            "http://a//b/",
            "http://a/..",
            "http://a/../x",
            "http://a/./x",
            "http://a/%2e%2E/x",
            "http://a/x/..;y/",
            "http://a/..%2fx",
            "http://a/%5c..",
            "http://a/<",
            "http://a/\"",
            "http://a/`",
            "http://a/\\",
            "http://a?<",
            "http://a/\u{e9}",
            "http://a/\x7f",
            "http://a/\0",
            "http://a/ ",
            "*",
            "http://a*",
        ] {
            let refused = check_http1(target.as_bytes(), false, LIMIT).map_err(|r| r.reason);
            assert_eq!(refused, Err(Reason::BadRequest), "{target:?}");
        }
    }

    #[test]
    fn the_length_limit_includes_scheme_and_authority() {
        let target = |length: usize| format!("http://a/{}", "x".repeat(length - 9));
        let longest = check_http1(target(LIMIT).as_bytes(), false, LIMIT);
        assert_eq!(longest.unwrap(), Form::Absolute);
        let refused = check_http1(target(LIMIT + 1).as_bytes(), false, LIMIT);
        assert_eq!(refused.unwrap_err().reason, Reason::UrlTooLong);
        let bad = format!("http://u@a/{}", "x".repeat(LIMIT));
        assert_eq!(
            check_http1(bad.as_bytes(), false, LIMIT)
                .unwrap_err()
                .reason,
            Reason::UrlTooLong
        );
    }

    #[test]
    fn only_origin_form_and_asterisk_are_valid_in_http2() {
        for (target, options) in [("http://a/", false), ("http://a", true), ("*", false)] {
            assert!(check_origin_form(target.as_bytes(), options, LIMIT).is_err());
        }
        assert_eq!(
            check_origin_form(b"*", true, LIMIT).unwrap(),
            Form::Asterisk
        );
        assert_eq!(
            check_origin_form(b"/a", false, LIMIT).unwrap(),
            Form::Origin
        );
    }

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
