//! Where a user goes after the sign-in: a path on the same site and nowhere else.

/// The longest `return_to`, in bytes. It is part of the attempt's cookie.
pub(super) const MAX_BYTES: usize = 1024;

/// How often a path may be percent-encoded.
const MAX_ENCODINGS: usize = 4;

/// Checks a `return_to`: a path with an optional query, on this site. `None` for anything that a browser
/// may read as another site (`//`, `/\`, control characters, their encodings) or that is too long.
///
/// Browsers drop tabs and newlines, read `\` as `/` and remove dot segments (WHATWG URL Standard §4.4),
/// and whatever the path passes through may decode it. So the path must be harmless as it is and however
/// often it is decoded. No browser sends dot segments or fragments by itself.
pub fn return_to(value: &str) -> Option<&str> {
    let fits = |b: u8| b.is_ascii_graphic() && !matches!(b, b'\\' | b'#');
    if value.len() > MAX_BYTES || !value.bytes().all(fits) {
        return None;
    }
    let path = value.split('?').next().unwrap_or_default();
    let mut reading = path.as_bytes().to_vec();
    for _ in 0..=MAX_ENCODINGS {
        if !is_local(&reading) {
            return None;
        }
        let decoded = decode(&reading);
        if decoded.len() == reading.len() {
            return Some(value);
        }
        reading = decoded;
    }
    None
}

/// Whether `path` begins with one slash, and has no byte and no segment that changes that for a browser.
fn is_local(path: &[u8]) -> bool {
    let harmless = |b: &u8| *b != b'\\' && !b.is_ascii_control();
    path.starts_with(b"/")
        && !path.starts_with(b"//")
        && path.iter().all(harmless)
        && !path.split(|b| *b == b'/').any(|s| s == b"." || s == b"..")
}

/// Decodes each percent-encoded byte once.
fn decode(text: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((byte, after)) = rest.split_first() {
        let hex = |at: usize| char::from(*after.get(at)?).to_digit(16);
        let encoded = match (byte, hex(0), hex(1)) {
            (b'%', Some(high), Some(low)) => u8::try_from(high * 16 + low).ok(),
            _ => None,
        };
        decoded.push(encoded.unwrap_or(*byte));
        let read = if encoded.is_some() { 2 } else { 0 };
        rest = after.get(read..).unwrap_or_default();
    }
    decoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_on_this_site_are_accepted() {
        for value in [
            "/",
            "/a",
            "/a/b?c=d&e=%2F%2Fevil.example",
            "/a//b",
            "/?next=//evil.example",
            "/?x=http://evil.example/",
            "/a%20b/%C3%A4",
            "/100%",
            "/a%2Fb",
            "/a%252Fb",
            "/.well-known/x",
            "/a..b/c.",
            "/@evil.example",
            "/:80",
            "/https://evil.example",
            "/%zz",
        ] {
            assert_eq!(return_to(value), Some(value));
        }
        let longest = format!("/{}", "a".repeat(MAX_BYTES - 1));
        assert_eq!(return_to(&longest), Some(longest.as_str()));
    }

    #[test]
    fn anything_that_could_lead_to_another_site_is_refused() {
        let hostile = [
            "",
            "a",
            "?a",
            "evil.example",
            "https://evil.example/",
            "https:evil.example",
            "javascript:alert(1)",
            "data:text/html,x",
            "//evil.example",
            "///evil.example",
            "//evil.example/%2f..",
            "/\\evil.example",
            "\\/evil.example",
            "\\\\evil.example",
            "/a\\b",
            "/?a\\b",
            "/\t/evil.example",
            "/\n/evil.example",
            "/\r\nSet-Cookie: a=b",
            "\t//evil.example",
            " //evil.example",
            " /a",
            "/a b",
            "/\0",
            "/\u{7f}",
            "/%2fevil.example",
            "/%2Fevil.example",
            "%2f%2fevil.example",
            "%2fevil.example",
            "/%5cevil.example",
            "/%5Cevil.example",
            "/%09/evil.example",
            "/%0a/evil.example",
            "/%0d%0aSet-Cookie:%20a=b",
            "/%00",
            "/%7f",
            "/%252fevil.example",
            "/%255cevil.example",
            "/%25252fevil.example",
            "/%2525252525252fevil.example",
            "/.//evil.example",
            "/..//evil.example",
            "/../../evil.example",
            "/a/..//evil.example",
            "/%2e//evil.example",
            "/%2e%2e/%2fevil.example",
            "/a/%252e%252e/b",
            "/#a",
            "/a#//evil.example",
            "/ä",
            "/\u{ff0f}evil.example",
            "/\u{2044}evil.example",
            "/\u{200b}/evil.example",
            "/\u{feff}/evil.example",
            "\u{feff}//evil.example",
            "/\u{85}/evil.example",
            "/\u{2028}/evil.example",
        ];
        for value in hostile {
            assert_eq!(return_to(value), None, "{value:?}");
        }
        assert_eq!(return_to(&format!("/{}", "a".repeat(MAX_BYTES))), None);
        assert_eq!(return_to(&format!("/%{}2f", "25".repeat(300))), None);
    }

    /// Whatever is accepted stays on this origin when a browser resolves it.
    #[test]
    fn what_is_accepted_stays_on_this_origin() {
        let base = url::Url::parse("https://app.example/oauth2/callback").unwrap();
        let parts = [
            "/",
            "\\",
            "%2f",
            "%5c",
            ".",
            "..",
            "%2e",
            "a",
            "@",
            ":",
            "?",
            "evil.example",
            "\t",
        ];
        let mut accepted = 0;
        for one in parts {
            for two in parts {
                for three in parts {
                    for four in parts {
                        let value = format!("{one}{two}{three}{four}");
                        let Some(value) = return_to(&value) else {
                            continue;
                        };
                        let url = base.join(value).unwrap();
                        assert_eq!(url.origin(), base.origin(), "{value:?}");
                        assert!(!url.path().starts_with("//"), "{value:?}");
                        accepted += 1;
                    }
                }
            }
        }
        assert!(accepted > 100, "{accepted}");
    }
}
