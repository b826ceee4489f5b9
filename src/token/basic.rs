//! A caller's username and password, sent as HTTP Basic credentials (RFC 7617), with an optional
//! second-factor code. They are read only on routes whose credential source verifies them.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderName;
use zeroize::Zeroizing;

use super::TokenError;
use super::bearer::scheme_and_rest;
use crate::header_fields::{HeaderFields, only, text};
use crate::secret::SecretString;

/// Maximum length of a username, in bytes.
const MAX_USERNAME_BYTES: usize = 256;
/// Maximum length of a password, in bytes.
const MAX_PASSWORD_BYTES: usize = 1024;
/// Maximum length of a second-factor code, in bytes.
const MAX_CODE_BYTES: usize = 64;
/// `X-OTP`, the header field that carries a second-factor code.
pub const OTP: HeaderName = HeaderName::from_static("x-otp");

/// Maximum length of `user-id:password` in base64, in bytes.
const MAX_ENCODED_BYTES: usize = (MAX_USERNAME_BYTES + 1 + MAX_PASSWORD_BYTES).div_ceil(3) * 4;

/// A username and password that have not been verified yet. `Debug` shows neither, and both
/// are wiped from memory on drop.
#[derive(Clone)]
pub struct BasicCredentials {
    username: Zeroizing<String>,
    password: SecretString,
    code: Option<SecretString>,
}

impl BasicCredentials {
    /// Reads a request's `Authorization` and `X-OTP` fields. `None` if there is no
    /// `Authorization` field, or if the username or the password is empty. The base64 must be
    /// canonical (RFC 4648 §4) and encode UTF-8 without control characters (RFC 7617 §2).
    ///
    /// # Errors
    /// [`TokenError::InvalidAuthorization`] if a field is repeated, malformed or exceeds a
    /// limit; [`TokenError::OtherScheme`] for any scheme other than `Basic`.
    pub fn from_headers(headers: &dyn HeaderFields) -> Result<Option<Self>, TokenError> {
        let Some((scheme, encoded)) = scheme_and_rest(headers)? else {
            return Ok(None);
        };
        if !scheme.eq_ignore_ascii_case(b"basic") {
            return Err(TokenError::OtherScheme);
        }
        let code = code(headers)?;
        let pair = decoded(encoded).ok_or(TokenError::InvalidAuthorization)?;
        let text = std::str::from_utf8(&pair).map_err(|_| TokenError::InvalidAuthorization)?;
        // A username cannot contain a colon, but a password can.
        let (username, password) = text
            .split_once(':')
            .ok_or(TokenError::InvalidAuthorization)?;
        if username.len() > MAX_USERNAME_BYTES
            || password.len() > MAX_PASSWORD_BYTES
            || text.chars().any(char::is_control)
        {
            return Err(TokenError::InvalidAuthorization);
        }
        if username.is_empty() || password.is_empty() {
            return Ok(None);
        }
        Ok(Some(Self {
            username: Zeroizing::new(username.to_owned()),
            password: SecretString::from(password),
            code,
        }))
    }

    /// The username, as sent.
    pub fn username(&self) -> &str {
        &self.username
    }

    /// The password.
    pub fn password(&self) -> &SecretString {
        &self.password
    }

    /// The second-factor code from `X-OTP`.
    pub fn code(&self) -> Option<&SecretString> {
        self.code.as_ref()
    }
}

impl fmt::Debug for BasicCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BasicCredentials([redacted])")
    }
}

/// Decodes into a buffer that is wiped on drop and never reallocated.
fn decoded(encoded: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    if encoded.len() > MAX_ENCODED_BYTES {
        return None;
    }
    let mut pair = Zeroizing::new(vec![0; encoded.len()]);
    let length = STANDARD.decode_slice(encoded, &mut pair[..]).ok()?;
    pair.truncate(length);
    Some(pair)
}

/// The value of the only `X-OTP` field, which may contain letters, digits and hyphens.
fn code(headers: &dyn HeaderFields) -> Result<Option<SecretString>, TokenError> {
    let several = |_| TokenError::InvalidAuthorization;
    let Some(value) = only(headers, &OTP).map_err(several)? else {
        return Ok(None);
    };
    let fits = |b: &u8| b.is_ascii_alphanumeric() || *b == b'-';
    match text(value) {
        Some(text)
            if (1..=MAX_CODE_BYTES).contains(&text.len()) && text.as_bytes().iter().all(fits) =>
        {
            Ok(Some(SecretString::from(text)))
        }
        _ => Err(TokenError::InvalidAuthorization),
    }
}

#[cfg(test)]
impl BasicCredentials {
    /// Credentials as if read from a request.
    pub(crate) fn for_tests(username: &str, password: &str, code: Option<&str>) -> Self {
        Self {
            username: Zeroizing::new(username.to_owned()),
            password: SecretString::from(password),
            code: code.map(SecretString::from),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderMap;
    use http::HeaderValue;
    use http::header::AUTHORIZATION;

    type Parts = (String, String, Option<String>);

    fn read(authorization: &[&[u8]], codes: &[&[u8]]) -> Result<Option<Parts>, TokenError> {
        let mut headers = HeaderMap::new();
        for value in authorization {
            headers.append(AUTHORIZATION, HeaderValue::from_bytes(value).unwrap());
        }
        for value in codes {
            headers.append(OTP, HeaderValue::from_bytes(value).unwrap());
        }
        let read = BasicCredentials::from_headers(&headers)?;
        Ok(read.map(|c| {
            let code = c.code().map(|code| code.expose().to_owned());
            (
                c.username().to_owned(),
                c.password().expose().to_owned(),
                code,
            )
        }))
    }

    fn basic(pair: impl AsRef<[u8]>) -> Vec<u8> {
        format!("Basic {}", STANDARD.encode(pair)).into_bytes()
    }

    fn parts(username: &str, password: &str) -> Parts {
        (username.to_owned(), password.to_owned(), None)
    }

    #[test]
    fn one_username_and_password_are_parsed() {
        assert_eq!(read(&[], &[]), Ok(None));
        for (pair, username, password) in [
            ("Aladdin:open sesame", "Aladdin", "open sesame"),
            ("a:b:c:", "a", "b:c:"),
            ("käthe@example.com:größe £", "käthe@example.com", "größe £"),
        ] {
            assert_eq!(
                read(&[&basic(pair)], &[]),
                Ok(Some(parts(username, password)))
            );
        }
        let lower = [b"bASIC  ".to_vec(), STANDARD.encode("a:b").into_bytes()].concat();
        assert_eq!(read(&[&lower], &[]), Ok(Some(parts("a", "b"))));
    }

    #[test]
    fn the_second_factor_code_is_parsed() {
        for code in ["123456", "ABCD-EFGH-JKLM", "QSVBD3RLYHLB2R6LSM3BCLEV"] {
            let (_, _, read) = read(&[&basic("a:b")], &[code.as_bytes()]).unwrap().unwrap();
            assert_eq!(read.as_deref(), Some(code));
        }
        let long = "1".repeat(MAX_CODE_BYTES + 1);
        for codes in [
            &[&b"123456"[..], b"123456"][..],
            &[b""],
            &[b"123 456"],
            &[b"123456,"],
            &["１２３".as_bytes()],
            &[long.as_bytes()],
        ] {
            assert_eq!(
                read(&[&basic("a:b")], codes),
                Err(TokenError::InvalidAuthorization)
            );
        }
    }

    #[test]
    fn repeated_or_malformed_authorization_is_refused() {
        let good = basic("a:b");
        let encoded = STANDARD.encode("a:b");
        let two: &[&[u8]] = &[&good, &good];
        assert_eq!(read(two, &[]), Err(TokenError::InvalidAuthorization));
        for value in [
            &b"Basic"[..],
            b"Basic ",
            b"Basic\tYTpi",
            b"Basic YTpi ",
            b"Basic YTpi YTpi",
            b"Basic YTpi,Bearer x",
            // Not canonical: missing or excess padding, or non-zero trailing bits.
            b"Basic YWE6Yg",
            b"Basic YTpi====",
            b"Basic YWE6Yh==",
            // base64url, and text that is not base64.
            b"Basic -_-_",
            b"Basic a:b",
        ] {
            let shown = String::from_utf8_lossy(value);
            assert_eq!(
                read(&[value], &[]),
                Err(TokenError::InvalidAuthorization),
                "{shown}"
            );
        }
        assert_eq!(
            read(&[format!("Basic {encoded}").as_bytes()], &[]),
            Ok(Some(parts("a", "b")))
        );
        for pair in [
            &b"no colon"[..],
            b"a\n:b",
            b"a:b\0",
            b"a:b\x7f",
            "a:b\u{85}".as_bytes(),
            b"a:\xff",
            b"a:\xc3",
            b"\xed\xa0\x80:b",
        ] {
            assert_eq!(
                read(&[&basic(pair)], &[]),
                Err(TokenError::InvalidAuthorization)
            );
        }
    }

    #[test]
    fn empty_credentials_are_absent_and_other_schemes_are_distinguished() {
        for pair in [":", ":password", "user:"] {
            assert_eq!(read(&[&basic(pair)], &[]), Ok(None), "{pair}");
        }
        for value in ["Bearer abc", "Basics YTpi", "Negotiate"] {
            assert_eq!(read(&[value.as_bytes()], &[]), Err(TokenError::OtherScheme));
        }
    }

    #[test]
    fn length_limits_are_enforced() {
        let pair = |u: usize, p: usize| format!("{}:{}", "u".repeat(u), "p".repeat(p));
        let [user, password] = [MAX_USERNAME_BYTES, MAX_PASSWORD_BYTES];
        assert!(
            read(&[&basic(pair(user, password))], &[])
                .unwrap()
                .is_some()
        );
        for (u, p) in [(user + 1, 1), (1, password + 1), (user + 1, password + 1)] {
            assert_eq!(
                read(&[&basic(pair(u, p))], &[]),
                Err(TokenError::InvalidAuthorization)
            );
        }
    }

    #[test]
    fn debug_redacts_credentials() {
        let shown = format!(
            "{:?}",
            BasicCredentials::for_tests("käthe", "hunter2", Some("123456"))
        );
        assert_eq!(shown, "BasicCredentials([redacted])");
    }
}
