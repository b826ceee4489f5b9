//! Headers that rules set: which names they may have, and which values are sent.

use http::{HeaderName, HeaderValue};

use super::Fault;
use crate::gateway::fields;

/// Longest value, in bytes.
pub const MAX_VALUE_BYTES: usize = 4096;

/// Why a rule may not set a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderNameError {
    /// RFC 9110 §5.1.
    #[error("is no header's name")]
    NoName,
    /// Some servers take `_` for `-`.
    #[error("has an underscore, which servers confuse with a hyphen")]
    Underscore,
    /// hawkgate strips or sets it by itself.
    #[error("is hawkgate's own to set")]
    Owned,
    /// RFC 9110 §7.6.1.
    #[error("belongs to one connection, not to a request")]
    HopByHop,
    /// Framing, routing or the body depends on it.
    #[error("is what the request's framing, routing or body depends on")]
    Structural,
}

/// A name as written, if a rule may set it.
///
/// # Errors
/// With the reason why not.
pub fn header_name(written: &str) -> Result<HeaderName, HeaderNameError> {
    if written.contains('_') {
        return Err(HeaderNameError::Underscore);
    }
    let name = HeaderName::try_from(written).map_err(|_| HeaderNameError::NoName)?;
    if fields::is_owned(name.as_str()) {
        return Err(HeaderNameError::Owned);
    }
    if fields::is_hop_by_hop(name.as_str()) {
        return Err(HeaderNameError::HopByHop);
    }
    if fields::is_structural(name.as_str()) {
        return Err(HeaderNameError::Structural);
    }
    Ok(name)
}

/// `text` as a value that every reader reads alike: visible ASCII with blanks inside only.
/// Nothing is repaired; the text is not repeated in the error.
pub(super) fn value(text: String) -> Result<HeaderValue, Fault> {
    let fault = |problem: &str| Err(Fault::Failed(problem.to_owned()));
    if text.len() > MAX_VALUE_BYTES {
        return fault("the value is too long");
    }
    if !text.bytes().all(|b| matches!(b, b' '..=b'~')) {
        return fault("the value has control characters or others outside of ASCII");
    }
    if text.starts_with(' ') || text.ends_with(' ') {
        return fault("the value begins or ends with a blank");
    }
    match HeaderValue::try_from(text) {
        Ok(value) => Ok(value),
        Err(_) => fault("the value cannot stand in a header"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_mean_something_already_are_refused() {
        use HeaderNameError as E;
        for (name, expected) in [
            ("x-auth-subject", None),
            ("X-Auth-Groups", None),
            ("remote-user", None),
            ("", Some(E::NoName)),
            ("x auth", Some(E::NoName)),
            ("x-auth\r\nevil", Some(E::NoName)),
            ("x_auth", Some(E::Underscore)),
            ("Authorization", Some(E::Owned)),
            ("x-forwarded-user", Some(E::Owned)),
            ("x-hawkgate-error", Some(E::Owned)),
            ("Connection", Some(E::HopByHop)),
            ("proxy-authorization", Some(E::HopByHop)),
            ("te", Some(E::HopByHop)),
            ("Host", Some(E::Structural)),
            ("content-length", Some(E::Structural)),
            ("transfer-encoding", Some(E::Structural)),
            ("cookie", Some(E::Structural)),
        ] {
            assert_eq!(header_name(name).err(), expected, "{name}");
        }
    }

    #[test]
    fn values_are_sent_as_they_are_or_not_at_all() {
        for good in ["", "a", "ad|Mozilla-LDAP|dev", "a b", "\"quoted\", list"] {
            assert_eq!(value(good.into()).unwrap(), good);
        }
        let long = "a".repeat(MAX_VALUE_BYTES + 1);
        for bad in [
            "a\r\nx-admin: 1",
            "a\nb",
            "a\rb",
            "a\0b",
            "a\tb",
            "\u{7f}",
            "é",
            "\u{2028}",
            " a",
            "a ",
            long.as_str(),
        ] {
            let fault = value(bad.into()).unwrap_err().to_string();
            assert!(!fault.contains("x-admin"), "{fault}");
        }
    }
}
