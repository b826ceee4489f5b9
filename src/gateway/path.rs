//! Paths as a lenient upstream may interpret them. Requests are forwarded byte for byte; the
//! normalized form is used only to detect paths that hawkgate and the upstream could interpret
//! differently.

/// The path of a request target.
pub(super) fn without_query(target: &str) -> &str {
    target.split_once('?').map_or(target, |(path, _)| path)
}

/// `path` with percent-encoding decoded, backslashes replaced by slashes and empty segments
/// removed; `None` if that changes nothing, in which case nothing is allocated unless `path`
/// has an escape.
pub(super) fn normalized(path: &str) -> Option<String> {
    if !path.contains(['%', '\\']) && !path.contains("//") {
        return None;
    }
    let bytes = path.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escaped = (bytes[at] == b'%')
            .then(|| bytes.get(at + 1..at + 3).and_then(hex))
            .flatten();
        let byte = match escaped.unwrap_or(bytes[at]) {
            b'\\' => b'/',
            other => other,
        };
        at += if escaped.is_some() { 3 } else { 1 };
        if !(byte == b'/' && decoded.last() == Some(&b'/')) {
            decoded.push(byte);
        }
    }
    let decoded = String::from_utf8_lossy(&decoded).into_owned();
    (decoded != path).then_some(decoded)
}

/// Whether `prefix` covers `path` (without query) at a segment boundary: `/api` covers `/api` and
/// `/api/x` but not `/apix`.
pub(super) fn covers(prefix: &str, path: &str) -> bool {
    path.strip_prefix(prefix)
        .is_some_and(|rest| rest.is_empty() || prefix.ends_with('/') || rest.starts_with('/'))
}

/// Whether a segment is `.` or `..` (RFC 3986 §3.3).
pub(super) fn has_dot_segments(path: &str) -> bool {
    path.split('/').any(|segment| matches!(segment, "." | ".."))
}

fn hex(digits: &[u8]) -> Option<u8> {
    let text = std::str::from_utf8(digits).ok()?;
    // `from_str_radix` would accept a sign.
    if !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    u8::from_str_radix(text, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_without_escapes_is_not_copied() {
        assert_eq!(normalized("/api/queue/v1/ping"), None);
        assert_eq!(without_query("/a?b?c"), "/a");
        assert_eq!(without_query("/a?"), "/a");
    }

    #[test]
    fn percent_encoding_is_decoded_once() {
        assert_eq!(normalized("/%61%2f%2F\\b").as_deref(), Some("/a/b"));
        assert_eq!(normalized("/%252e").as_deref(), Some("/%2e"));
        assert_eq!(normalized("/%+1/%4"), None);
        assert!(normalized("/%ff").is_some());
        assert!(
            has_dot_segments("/a/../b") && has_dot_segments("/.") && !has_dot_segments("/a..b/...")
        );
    }
}
