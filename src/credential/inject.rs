//! Which request header carries a bearer credential upstream, and in which format.

use std::ops::Range;

use http::{HeaderName, HeaderValue, header};
use zeroize::Zeroizing;

const PLACEHOLDER: &str = "{token}";

/// The header that carries a token upstream, and the format of its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inject {
    header: HeaderName,
    before: String,
    after: String,
}

/// Why a header or format cannot be used. The messages complete a sentence that begins with
/// the offending value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InjectError {
    /// Not a header's name (RFC 9110 §5.1).
    #[error("is not a header name")]
    Name,
    /// The header is part of HTTP framing, specific to one connection, or set by hawkgate.
    #[error("is reserved: it frames the message, belongs to one connection or is set by hawkgate")]
    Reserved,
    /// The format does not contain exactly one placeholder for the token.
    #[error("must contain {{token}} exactly once")]
    Placeholder,
    /// The format is not valid in a header value.
    #[error(
        "may contain only printable ASCII, no other braces, and no space at the beginning or end"
    )]
    Format,
}

impl Default for Inject {
    /// `Authorization: Bearer {token}` (RFC 6750 §2.1).
    fn default() -> Self {
        Self {
            header: header::AUTHORIZATION,
            before: "Bearer ".to_owned(),
            after: String::new(),
        }
    }
}

impl Inject {
    /// `Authorization: Basic {token}` (RFC 7617 §2), where the token is the encoded pair.
    pub fn basic() -> Self {
        Self {
            before: "Basic ".to_owned(),
            ..Self::default()
        }
    }

    /// Takes a header name in any case and a format that contains `{token}` once.
    ///
    /// # Errors
    /// If either is invalid or would conflict with what hawkgate itself sets.
    pub fn new(header: &str, format: &str) -> Result<Self, InjectError> {
        Self::header_named(header).and_then(|header| {
            let (before, after) = split(format)?;
            Ok(Self {
                header,
                before: before.to_owned(),
                after: after.to_owned(),
            })
        })
    }

    /// The header called `name`, if it may carry a token.
    ///
    /// # Errors
    /// [`InjectError::Name`] and [`InjectError::Reserved`].
    pub fn header_named(name: &str) -> Result<HeaderName, InjectError> {
        let header = HeaderName::from_bytes(name.as_bytes()).map_err(|_| InjectError::Name)?;
        // Some servers treat `_` as `-`.
        if is_reserved(&header.as_str().replace('_', "-")) {
            return Err(InjectError::Reserved);
        }
        Ok(header)
    }

    /// Checks that `format` can hold a token.
    ///
    /// # Errors
    /// [`InjectError::Placeholder`] and [`InjectError::Format`].
    pub fn check_format(format: &str) -> Result<(), InjectError> {
        split(format).map(|_| ())
    }

    /// The header.
    pub fn header(&self) -> &HeaderName {
        &self.header
    }

    /// The header's value for `token`, marked sensitive; `None` if the token contains bytes
    /// that no header value may.
    pub fn value(&self, token: &str) -> Option<HeaderValue> {
        let text = Zeroizing::new(format!("{}{token}{}", self.before, self.after));
        let mut value = HeaderValue::from_str(&text).ok()?;
        value.set_sensitive(true);
        Some(value)
    }

    /// Where in a value that [`Self::value`] returned the token is.
    pub fn token_in(&self, value: &HeaderValue) -> Range<usize> {
        self.before.len()..value.len().saturating_sub(self.after.len())
    }
}

fn split(format: &str) -> Result<(&str, &str), InjectError> {
    let (before, after) = format
        .split_once(PLACEHOLDER)
        .ok_or(InjectError::Placeholder)?;
    if after.contains(PLACEHOLDER) {
        return Err(InjectError::Placeholder);
    }
    let fits = |b: u8| matches!(b, b' '..=b'~') && !b"{}".contains(&b);
    let mut bytes = before.bytes().chain(after.bytes());
    if !bytes.all(fits) || before.starts_with(' ') || after.ends_with(' ') {
        return Err(InjectError::Format);
    }
    Ok((before, after))
}

/// Expects `name` in lower case.
fn is_reserved(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "keep-alive"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
            | "http2-settings"
            | "host"
            | "expect"
            | "forwarded"
            | "x-request-id"
            | "x-real-ip"
    ) || [
        "content-",
        "proxy-",
        "x-forwarded",
        "x-original-",
        "x-hawkgate-",
        "sec-websocket-",
    ]
    .iter()
    .any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_sent_in_the_configured_header() {
        for (inject, header, value) in [
            (Inject::default(), "authorization", "Bearer t.k"),
            (
                Inject::new("X-Api-Token", "{token}").unwrap(),
                "x-api-token",
                "t.k",
            ),
            (
                Inject::new("Authorization", "token {token}").unwrap(),
                "authorization",
                "token t.k",
            ),
            (
                Inject::new("Cookie", "s={token}; Path").unwrap(),
                "cookie",
                "s=t.k; Path",
            ),
        ] {
            let written = inject.value("t.k").unwrap();
            assert_eq!(
                (inject.header().as_str(), &written),
                (header, &HeaderValue::from_static(value))
            );
            assert!(written.is_sensitive());
        }
        assert!(Inject::default().value("a\r\nb").is_none());
    }

    #[test]
    fn reserved_headers_are_rejected() {
        for name in [
            "Connection",
            "keep-alive",
            "TE",
            "Trailer",
            "Transfer-Encoding",
            "Upgrade",
            "Host",
            "Expect",
            "Content-Length",
            "content-type",
            "Proxy-Authorization",
            "X-Forwarded-For",
            "x-forwarded-user",
            "Forwarded",
            "X-Hawkgate-Error",
            "X-Request-Id",
            "Sec-WebSocket-Key",
            "transfer_encoding",
        ] {
            assert_eq!(
                Inject::header_named(name),
                Err(InjectError::Reserved),
                "{name}"
            );
        }
        for name in ["", "a b", "a:b", "ü", ":path"] {
            assert_eq!(Inject::header_named(name), Err(InjectError::Name), "{name}");
        }
    }

    #[test]
    fn a_format_has_one_placeholder_and_is_a_valid_header_value() {
        for (format, error) in [
            ("", InjectError::Placeholder),
            ("Bearer", InjectError::Placeholder),
            ("{token} {token}", InjectError::Placeholder),
            (" {token}", InjectError::Format),
            ("{token} ", InjectError::Format),
            ("{token}\r\nX: y", InjectError::Format),
            ("{{token}}", InjectError::Format),
            ("{sub} {token}", InjectError::Format),
            ("ü{token}", InjectError::Format),
        ] {
            assert_eq!(Inject::check_format(format), Err(error), "{format:?}");
        }
    }
}
