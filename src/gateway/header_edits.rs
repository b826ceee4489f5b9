//! `request_headers` and `response_headers` of a route: fields that it removes, sets or adds, and
//! which fields it may not touch.

use http::{HeaderName, HeaderValue};

use super::reserved_headers::{as_read, is_hop_by_hop, is_reserved, reads_as};

/// What a route changes in the header of a message, in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderEdits {
    /// Fields that are removed.
    pub remove: Vec<HeaderName>,
    /// Fields that replace those of the same name.
    pub set: Vec<(HeaderName, HeaderValue)>,
    /// Field lines that are added to those of the same name, unless there is one with that value.
    pub add: Vec<(HeaderName, HeaderValue)>,
}

impl HeaderEdits {
    /// Whether nothing is changed.
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.set.is_empty() && self.add.is_empty()
    }

    /// The names of all fields that are changed.
    pub fn names(&self) -> impl Iterator<Item = &HeaderName> {
        let written = self.set.iter().chain(&self.add).map(|(name, _)| name);
        self.remove.iter().chain(written)
    }

    /// Whether the lines of a message that are called `name` are removed: because recipients may read
    /// it as one that is removed or set.
    pub fn removes(&self, name: &str) -> bool {
        let set = self.set.iter().map(|(name, _)| name);
        let mut removed = self.remove.iter().chain(set);
        removed.any(|own| reads_as(name.as_bytes(), own.as_str().as_bytes()))
    }

    /// Whether recipients may read `name` as a field that is changed in any way.
    pub fn changes(&self, name: &str) -> bool {
        self.names()
            .any(|own| reads_as(name.as_bytes(), own.as_str().as_bytes()))
    }
}

/// Which messages are changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edited {
    /// Requests that are forwarded upstream.
    Request,
    /// Responses of the upstream.
    Response,
}

/// Why a route may not change a field. The messages complete a sentence that begins with its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtectedField {
    /// Not a field name (RFC 9110 §5.1).
    #[error("is not a header name")]
    Invalid,
    /// Recipients may read a letter, digit or hyphen only in one way.
    #[error("has a character other than letters, digits and hyphens")]
    Character,
    /// The framing of the message depends on it, or it concerns one connection only.
    #[error("frames the message or belongs to one connection")]
    Framing,
    /// It carries a credential, which only sources send.
    #[error("carries a credential, which only a source sends")]
    Credential,
    /// hawkgate sets it on every request, or removes it from every one.
    #[error("is set by hawkgate itself, or never forwarded")]
    Own,
    /// It belongs to authentication or would lead callers past hawkgate.
    #[error("is for authentication, or would lead callers past hawkgate")]
    Authentication,
    /// Only the upstream and sessions set cookies.
    #[error("sets a cookie, which only the upstream and sessions do")]
    Cookie,
}

impl Edited {
    /// The field called `name`, in any case, if a route may change it. `removed` tells whether it is
    /// only removed.
    ///
    /// # Errors
    /// If it may not.
    pub fn field(self, name: &str, removed: bool) -> Result<HeaderName, ProtectedField> {
        let field = HeaderName::try_from(name).map_err(|_| ProtectedField::Invalid)?;
        let name = field.as_str();
        if *as_read(name) != *name {
            return Err(ProtectedField::Character);
        }
        if is_hop_by_hop(name) || is_framing(name) {
            return Err(ProtectedField::Framing);
        }
        match self {
            Self::Request => check_request_field(name, removed)?,
            Self::Response => check_response_field(name, removed)?,
        }
        Ok(field)
    }
}

/// Whether the boundaries or the coding of a message depend on a field.
fn is_framing(name: &str) -> bool {
    matches!(
        name,
        "content-length" | "transfer-encoding" | "content-encoding" | "content-range" | "expect"
    ) || name.starts_with("sec-websocket-")
}

fn check_request_field(name: &str, removed: bool) -> Result<(), ProtectedField> {
    match name {
        "authorization" => Err(ProtectedField::Credential),
        "cookie" if !removed => Err(ProtectedField::Credential),
        "host" | "x-request-id" | "traceparent" | "tracestate" | "max-forwards" => {
            Err(ProtectedField::Own)
        }
        _ if is_reserved(name) => Err(ProtectedField::Own),
        _ => Ok(()),
    }
}

fn check_response_field(name: &str, removed: bool) -> Result<(), ProtectedField> {
    match name {
        "authorization"
        | "server-authorization"
        | "authentication-info"
        | "www-authenticate"
        | "alt-svc" => Err(ProtectedField::Authentication),
        "set-cookie" | "set-cookie2" if !removed => Err(ProtectedField::Cookie),
        _ if name.starts_with("x-hawkgate-") => Err(ProtectedField::Own),
        _ => Ok(()),
    }
}

/// Whether a field of a request probably carries a credential, judging by its name.
pub fn looks_secret(name: &str) -> bool {
    let words = [
        "api-key",
        "apikey",
        "token",
        "secret",
        "password",
        "passwd",
        "credential",
        "auth",
    ];
    words.iter().any(|word| name.contains(word)) || name.ends_with("-key")
}

/// The value of a field (RFC 9110 §5.5): printable ASCII, with spaces only in between.
pub fn field_value(text: &str) -> Option<HeaderValue> {
    let printable = text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    let fits = printable && !text.is_empty() && text.trim() == text;
    HeaderValue::from_str(text).ok().filter(|_| fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_that_hawkgate_depends_on_cannot_be_changed() {
        for (name, error) in [
            ("a b", ProtectedField::Invalid),
            ("", ProtectedField::Invalid),
            ("x_a", ProtectedField::Character),
            ("Connection", ProtectedField::Framing),
            ("TE", ProtectedField::Framing),
            ("Proxy-Authorization", ProtectedField::Framing),
            ("Content-Length", ProtectedField::Framing),
            ("Transfer-Encoding", ProtectedField::Framing),
            ("Sec-WebSocket-Key", ProtectedField::Framing),
        ] {
            for edited in [Edited::Request, Edited::Response] {
                assert_eq!(edited.field(name, false), Err(error), "{name}");
                assert_eq!(edited.field(name, true), Err(error), "{name}");
            }
        }
        for (name, error) in [
            ("Authorization", ProtectedField::Credential),
            ("Host", ProtectedField::Own),
            ("X-Request-Id", ProtectedField::Own),
            ("X-Forwarded-For", ProtectedField::Own),
            ("X-Hawkgate-Error", ProtectedField::Own),
            ("X-HTTP-Method-Override", ProtectedField::Own),
            ("traceparent", ProtectedField::Own),
        ] {
            assert_eq!(Edited::Request.field(name, true), Err(error), "{name}");
        }
        for (name, error) in [
            ("WWW-Authenticate", ProtectedField::Authentication),
            ("Alt-Svc", ProtectedField::Authentication),
            ("X-Hawkgate-Error", ProtectedField::Own),
        ] {
            assert_eq!(Edited::Response.field(name, true), Err(error), "{name}");
        }
        for (edited, name, error) in [
            (Edited::Request, "Cookie", ProtectedField::Credential),
            (Edited::Response, "Set-Cookie", ProtectedField::Cookie),
        ] {
            assert_eq!(edited.field(name, false), Err(error));
            assert!(edited.field(name, true).is_ok());
        }
        for name in [
            "Accept",
            "X-A",
            "Remote-User",
            "Content-Type",
            "X-Api-Version",
        ] {
            assert!(Edited::Request.field(name, false).is_ok(), "{name}");
        }
        for name in ["Strict-Transport-Security", "Server", "Location", "Vary"] {
            assert!(Edited::Response.field(name, false).is_ok(), "{name}");
        }
    }

    #[test]
    fn values_are_printable_and_names_of_credentials_are_recognized() {
        for text in ["", " a", "a ", "a\tb", "a\r\nb", "\u{e9}"] {
            assert_eq!(field_value(text), None, "{text:?}");
        }
        assert_eq!(field_value("a; b=\"c\"").unwrap(), "a; b=\"c\"");
        for name in [
            "x-api-key",
            "apikey",
            "private-token",
            "x-auth",
            "ocp-apim-subscription-key",
        ] {
            assert!(looks_secret(name), "{name}");
        }
        for name in ["accept", "x-api-version", "x-keyboard", "user-agent"] {
            assert!(!looks_secret(name), "{name}");
        }
    }

    #[test]
    fn names_that_recipients_may_read_as_a_removed_one_are_removed_too() {
        let edits = HeaderEdits {
            remove: vec![HeaderName::from_static("x-one")],
            set: vec![(
                HeaderName::from_static("x-two"),
                HeaderValue::from_static("2"),
            )],
            add: vec![(
                HeaderName::from_static("x-three"),
                HeaderValue::from_static("3"),
            )],
        };
        for (name, removed) in [
            ("x-one", true),
            ("x_one", true),
            ("x.two", true),
            ("x-three", false),
            ("x-on", false),
        ] {
            assert_eq!(edits.removes(name), removed, "{name}");
        }
        assert!(edits.changes("x_three") && !edits.changes("x-on"));
        assert_eq!(edits.names().count(), 3);
        assert!(HeaderEdits::default().is_empty() && !edits.is_empty());
    }
}
