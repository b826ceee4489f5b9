//! Headers set by rules: which names are allowed and which values are valid.

use http::{HeaderName, HeaderValue};

use super::EvaluationError;
use crate::gateway::reserved_headers;

/// Maximum length of a value, in bytes.
pub const MAX_VALUE_BYTES: usize = 4096;

/// Why a rule may not set a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderNameError {
    /// Not a field name (RFC 9110 §5.1).
    #[error("is not a header name")]
    Invalid,
    /// Some servers treat `_` as `-`.
    #[error("has an underscore, which some servers treat as a hyphen")]
    Underscore,
    /// A header that hawkgate strips or sets itself.
    #[error("is reserved for hawkgate")]
    Reserved,
    /// A hop-by-hop header (RFC 9110 §7.6.1).
    #[error("is a hop-by-hop header")]
    HopByHop,
    /// A header that determines framing, routing or the interpretation of the body.
    #[error("determines the request's framing, routing or body")]
    Structural,
}

/// Parses the name of a header that a rule sets.
///
/// # Errors
/// If rules may not set it.
pub fn header_name(written: &str) -> Result<HeaderName, HeaderNameError> {
    if written.contains('_') {
        return Err(HeaderNameError::Underscore);
    }
    let name = HeaderName::try_from(written).map_err(|_| HeaderNameError::Invalid)?;
    if reserved_headers::is_reserved(name.as_str()) {
        return Err(HeaderNameError::Reserved);
    }
    if reserved_headers::is_hop_by_hop(name.as_str()) {
        return Err(HeaderNameError::HopByHop);
    }
    if reserved_headers::is_structural(name.as_str()) {
        return Err(HeaderNameError::Structural);
    }
    Ok(name)
}

/// `text` as a header value that every recipient parses the same way: printable ASCII without
/// leading or trailing spaces. Other values are rejected rather than repaired; the error does not
/// quote them.
pub(super) fn value(text: String) -> Result<HeaderValue, EvaluationError> {
    let error = |problem: &str| Err(EvaluationError::Failed(problem.to_owned()));
    if text.len() > MAX_VALUE_BYTES {
        return error("the value is too long");
    }
    if !text.bytes().all(|b| matches!(b, b' '..=b'~')) {
        return error("the value has control or non-ASCII characters");
    }
    if text.starts_with(' ') || text.ends_with(' ') {
        return error("the value begins or ends with a space");
    }
    match HeaderValue::try_from(text) {
        Ok(value) => Ok(value),
        Err(_) => error("the value is not valid in a header"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_header_names_are_refused() {
        use HeaderNameError as E;
        for (name, expected) in [
            ("x-auth-subject", None),
            ("X-Auth-Groups", None),
            ("remote-user", None),
            ("", Some(E::Invalid)),
            ("x auth", Some(E::Invalid)),
            ("x-auth\r\nevil", Some(E::Invalid)),
            ("x_auth", Some(E::Underscore)),
            ("Authorization", Some(E::Reserved)),
            ("x-forwarded-user", Some(E::Reserved)),
            ("x-hawkgate-error", Some(E::Reserved)),
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
    fn header_values_are_accepted_unchanged_or_refused() {
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
            let error = value(bad.into()).unwrap_err().to_string();
            assert!(!error.contains("x-admin"), "{error}");
        }
    }
}
