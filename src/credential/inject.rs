//! Where in a request a bearer credential goes.

use http::{HeaderName, HeaderValue, header};
use zeroize::Zeroizing;

const PLACE: &str = "{token}";

/// The header that bears a token upstream, and how it is written there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inject {
    header: HeaderName,
    before: String,
    after: String,
}

/// Why a header or a format cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InjectError {
    /// Not a header's name (RFC 9110 §5.1).
    #[error("is no header's name")]
    Name,
    /// Framing, hops and parties are hawkgate's and HTTP's own.
    #[error("is a header that frames the message, belongs to one connection or is set by hawkgate")]
    Reserved,
    /// The format has no place for the token, or several.
    #[error("does not have {{token}} in it exactly once")]
    Place,
    /// The format could not stand in a header.
    #[error(
        "may hold printable ASCII without further braces, and no blank at its beginning or end"
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
    /// `header` by its name in any case; `format` with `{token}` in it once.
    ///
    /// # Errors
    /// When either could not stand in a request beside what hawkgate puts there.
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

    /// The header called `name`, if a token may go there.
    ///
    /// # Errors
    /// [`InjectError::Name`] and [`InjectError::Reserved`].
    pub fn header_named(name: &str) -> Result<HeaderName, InjectError> {
        let header = HeaderName::from_bytes(name.as_bytes()).map_err(|_| InjectError::Name)?;
        // Some servers take `_` for `-`.
        if is_reserved(&header.as_str().replace('_', "-")) {
            return Err(InjectError::Reserved);
        }
        Ok(header)
    }

    /// Whether a token can be written by `format`.
    ///
    /// # Errors
    /// [`InjectError::Place`] and [`InjectError::Format`].
    pub fn check_format(format: &str) -> Result<(), InjectError> {
        split(format).map(|_| ())
    }

    /// The header.
    pub fn header(&self) -> &HeaderName {
        &self.header
    }

    /// Its value with `token`, marked sensitive; `None` when the token cannot stand in one.
    pub fn value(&self, token: &str) -> Option<HeaderValue> {
        let text = Zeroizing::new(format!("{}{token}{}", self.before, self.after));
        let mut value = HeaderValue::from_str(&text).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

fn split(format: &str) -> Result<(&str, &str), InjectError> {
    let (before, after) = format.split_once(PLACE).ok_or(InjectError::Place)?;
    if after.contains(PLACE) {
        return Err(InjectError::Place);
    }
    let fits = |b: u8| matches!(b, b' '..=b'~') && !b"{}".contains(&b);
    let mut bytes = before.bytes().chain(after.bytes());
    if !bytes.all(fits) || before.starts_with(' ') || after.ends_with(' ') {
        return Err(InjectError::Format);
    }
    Ok((before, after))
}

/// Lower case, as `http` keeps names.
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
    fn a_token_goes_where_it_is_told_to() {
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
    fn headers_of_http_and_of_hawkgate_are_not_for_tokens() {
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
    fn a_format_has_one_place_and_nothing_that_breaks_a_header() {
        for (format, error) in [
            ("", InjectError::Place),
            ("Bearer", InjectError::Place),
            ("{token} {token}", InjectError::Place),
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
