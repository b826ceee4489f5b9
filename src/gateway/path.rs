//! Paths as a careless upstream might read them. Requests are forwarded byte for byte;
//! this reading only serves to notice paths that routes and upstream could take
//! differently.

/// The path of a request target.
pub(super) fn without_query(target: &str) -> &str {
    target.split_once('?').map_or(target, |(path, _)| path)
}

/// `path` with escapes decoded, backslashes turned and empty segments dropped; `None`
/// when that changes nothing, which is the common case and allocates nothing.
pub(super) fn decoded(path: &str) -> Option<String> {
    if !path.contains(['%', '\\']) && !path.contains("//") {
        return None;
    }
    let bytes = path.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
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
        if !(byte == b'/' && plain.last() == Some(&b'/')) {
            plain.push(byte);
        }
    }
    let plain = String::from_utf8_lossy(&plain).into_owned();
    (plain != path).then_some(plain)
}

/// Whether a segment is `.` or `..`.
pub(super) fn climbs(path: &str) -> bool {
    path.split('/').any(|segment| matches!(segment, "." | ".."))
}

fn hex(digits: &[u8]) -> Option<u8> {
    let text = std::str::from_utf8(digits).ok()?;
    // `from_str_radix` also takes a sign.
    if !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    u8::from_str_radix(text, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_paths_are_not_copied() {
        assert_eq!(decoded("/api/queue/v1/ping"), None);
        assert_eq!(without_query("/a?b?c"), "/a");
        assert_eq!(without_query("/a?"), "/a");
    }

    #[test]
    fn escapes_are_read_once() {
        assert_eq!(decoded("/%61%2f%2F\\b").as_deref(), Some("/a/b"));
        assert_eq!(decoded("/%252e").as_deref(), Some("/%2e"));
        assert_eq!(decoded("/%+1/%4"), None);
        assert!(decoded("/%ff").is_some());
        assert!(climbs("/a/../b") && climbs("/.") && !climbs("/a..b/..."));
    }
}
