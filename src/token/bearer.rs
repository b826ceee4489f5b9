//! Bearer tokens, as sent by callers (RFC 6750 §2.1).

use std::fmt;
use std::sync::{Arc, LazyLock};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use http::header::AUTHORIZATION;
use zeroize::Zeroizing;

use super::TokenError;
use crate::header_fields::{HeaderFields, only};

/// Maximum length of a token, in bytes, whatever `limits.token_bytes` is.
pub const MAX_TOKEN_BYTES: usize = 32 * 1024;

/// The default of `limits.token_bytes`, in bytes.
pub const DEFAULT_TOKEN_BYTES: usize = 8 * 1024;

/// Random per process, so that digests are meaningless outside this process.
static DIGEST_KEY: LazyLock<Option<hmac::Key>> =
    LazyLock::new(|| hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new()).ok());

/// A keyed hash of a token: HMAC-SHA256 with a random per-process key. Caches use it as their key
/// instead of the token.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenDigest(pub(crate) [u8; 32]);

impl TokenDigest {
    fn of(text: &[u8]) -> Result<Self, TokenError> {
        let key = DIGEST_KEY.as_ref().ok_or(TokenError::Internal)?;
        let tag = hmac::sign(key, text);
        let bytes = tag.as_ref().try_into().map_err(|_| TokenError::Internal)?;
        Ok(Self(bytes))
    }
}

impl fmt::Debug for TokenDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenDigest(..)")
    }
}

/// A bearer token borrowed from a request's head: limited in length, safe in a header field,
/// redacted in `Debug`. A token that is already cached never needs to be copied.
#[derive(Clone, Copy)]
pub struct PresentedToken<'h> {
    /// Satisfies [`is_b64token`].
    text: &'h [u8],
    digest: TokenDigest,
}

impl<'h> PresentedToken<'h> {
    /// The bearer token in a request's `Authorization` field; `None` if there is no such
    /// field. The scheme is case-insensitive (RFC 9110 §11.1) and must be followed by one
    /// `b64token` (RFC 6750 §2.1) of at most `max_bytes`. Tokens in a query or a body are ignored.
    ///
    /// # Errors
    /// [`TokenError::InvalidAuthorization`] if the field is repeated or malformed,
    /// [`TokenError::OtherScheme`] for a scheme such as `Basic` or `Hawk`,
    /// [`TokenError::TooLarge`] above `max_bytes`.
    pub fn from_headers(
        headers: &'h dyn HeaderFields,
        max_bytes: usize,
    ) -> Result<Option<Self>, TokenError> {
        let text = bearer_text(headers)?;
        text.map(|text| Self::new(text, max_bytes)).transpose()
    }

    fn new(text: &'h [u8], max_bytes: usize) -> Result<Self, TokenError> {
        if !is_b64token(text) {
            return Err(TokenError::InvalidAuthorization);
        }
        if text.len() > max_bytes.min(MAX_TOKEN_BYTES) {
            return Err(TokenError::TooLarge);
        }
        Ok(Self {
            digest: TokenDigest::of(text)?,
            text,
        })
    }

    /// Its length, in bytes.
    pub(super) fn size(&self) -> usize {
        self.text.len()
    }

    /// The token in plain text. Review every use of this.
    pub fn expose(&self) -> &'h str {
        // Not done in `new`: it costs as much as the digest, and a cached token does not need it.
        std::str::from_utf8(self.text).unwrap_or_default()
    }

    /// The token's keyed hash.
    pub fn digest(&self) -> TokenDigest {
        self.digest
    }

    /// An owned copy.
    pub fn to_bearer(self) -> BearerToken {
        BearerToken {
            text: Arc::new(Zeroizing::new(self.expose().to_owned())),
            digest: self.digest,
        }
    }
}

impl<'t> From<&'t BearerToken> for PresentedToken<'t> {
    fn from(token: &'t BearerToken) -> Self {
        Self {
            text: token.text.as_bytes(),
            digest: token.digest,
        }
    }
}

impl fmt::Debug for PresentedToken<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PresentedToken([redacted])")
    }
}

/// An owned bearer token: limited in length, safe in a header field, redacted in `Debug`.
/// Cheap to clone.
#[derive(Clone)]
pub struct BearerToken {
    text: Arc<Zeroizing<String>>,
    digest: TokenDigest,
}

impl BearerToken {
    /// Like [`PresentedToken::from_headers`], but owned.
    ///
    /// # Errors
    /// As [`PresentedToken::from_headers`].
    pub fn from_headers(
        headers: &dyn HeaderFields,
        max_bytes: usize,
    ) -> Result<Option<Self>, TokenError> {
        let presented = PresentedToken::from_headers(headers, max_bytes)?;
        Ok(presented.map(PresentedToken::to_bearer))
    }

    /// A token that no caller sent: it was read, for example, from a workload's file, or issued to
    /// hawkgate itself.
    ///
    /// # Errors
    /// As [`Self::from_headers`], if the text is not a `b64token` or exceeds [`MAX_TOKEN_BYTES`].
    pub fn new(text: &str) -> Result<Self, TokenError> {
        Self::within(text, MAX_TOKEN_BYTES)
    }

    /// A token of at most `max_bytes` that was not read from a header field.
    ///
    /// # Errors
    /// As [`Self::from_headers`], if the text is not a `b64token` or exceeds the limit.
    pub fn within(text: &str, max_bytes: usize) -> Result<Self, TokenError> {
        PresentedToken::new(text.as_bytes(), max_bytes).map(PresentedToken::to_bearer)
    }

    /// The token in plain text. Review every use of this.
    pub fn expose(&self) -> &str {
        &self.text
    }

    /// The token's keyed hash.
    pub fn digest(&self) -> TokenDigest {
        self.digest
    }

    /// Whether the token is `text`. The time taken depends on the lengths alone.
    pub(super) fn is(&self, text: &[u8]) -> bool {
        verify_slices_are_equal(self.text.as_bytes(), text).is_ok()
    }
}

impl fmt::Debug for BearerToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BearerToken([redacted])")
    }
}

/// What follows `Bearer` in the `Authorization` field, in which nothing else has been checked yet;
/// `None` if there is no such field.
pub(super) fn bearer_text(headers: &dyn HeaderFields) -> Result<Option<&[u8]>, TokenError> {
    match scheme_and_rest(headers)? {
        None => Ok(None),
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case(b"bearer") => Ok(Some(rest)),
        Some(_) => Err(TokenError::OtherScheme),
    }
}

/// An authentication scheme and what follows it.
type Credentials<'h> = (&'h [u8], &'h [u8]);

/// The scheme of the `Authorization` field, and what follows it after the separating spaces
/// (RFC 9110 §11.4); `None` if there is no such field.
pub(super) fn scheme_and_rest(
    headers: &dyn HeaderFields,
) -> Result<Option<Credentials<'_>>, TokenError> {
    let several = |_| TokenError::InvalidAuthorization;
    let Some(value) = only(headers, &AUTHORIZATION).map_err(several)? else {
        return Ok(None);
    };
    let end = value.iter().position(|b| !is_tchar(*b));
    let (scheme, rest) = value.split_at(end.unwrap_or(value.len()));
    if scheme.is_empty() || rest.first().is_some_and(|b| *b != b' ') {
        return Err(TokenError::InvalidAuthorization);
    }
    let spaces = rest.iter().take_while(|b| **b == b' ').count();
    Ok(Some((scheme, &rest[spaces..])))
}

/// `tchar` (RFC 9110 §5.6.2), the characters allowed in a scheme.
fn is_tchar(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// `b64token` (RFC 6750 §2.1): one or more characters of the alphabet, then any number of `=`.
fn is_b64token(bytes: &[u8]) -> bool {
    let padding = bytes.iter().rev().take_while(|b| **b == b'=').count();
    let body = &bytes[..bytes.len() - padding];
    // No early exit, so that the compiler can vectorise the loop.
    let all = body.iter().fold(true, |all, byte| all & is_b64(*byte));
    all && !body.is_empty()
}

fn is_b64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'/' | b'_' | b'~' | b'+')
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderMap, HeaderValue};

    fn read(values: &[&[u8]]) -> Result<Option<String>, TokenError> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, HeaderValue::from_bytes(value).unwrap());
        }
        let token = BearerToken::from_headers(&headers, DEFAULT_TOKEN_BYTES);
        token.map(|t| t.map(|t| t.expose().to_owned()))
    }

    #[test]
    fn one_bearer_token_is_parsed() {
        assert_eq!(read(&[]), Ok(None));
        for value in [
            "Bearer a.b-c_~+/==",
            "bearer a.b-c_~+/==",
            "BEARER  a.b-c_~+/==",
        ] {
            assert_eq!(read(&[value.as_bytes()]), Ok(Some("a.b-c_~+/==".into())));
        }
    }

    #[test]
    fn a_b64token_has_exactly_the_alphabet_of_rfc_6750() {
        for byte in 0..=u8::MAX {
            let expected = byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte);
            assert_eq!(is_b64(byte), expected, "{byte}");
            assert_eq!(is_b64token(&[b'a', byte, b'a']), expected, "{byte}");
        }
    }

    #[test]
    fn repeated_or_malformed_authorization_is_refused() {
        let two: &[&[u8]] = &[b"Bearer a", b"Bearer a"];
        assert_eq!(read(two), Err(TokenError::InvalidAuthorization));
        let mixed: &[&[u8]] = &[b"Basic a", b"Bearer a"];
        assert_eq!(read(mixed), Err(TokenError::InvalidAuthorization));
        for value in [
            &b""[..],
            b" Bearer a",
            b"Bearer",
            b"Bearer ",
            b"Bearer =",
            b"Bearer a b",
            b"Bearer a ",
            b"Bearer a,Bearer b",
            b"Bearer a=b",
            b"Bearer \"a\"",
            b"Bearer\ta",
            b"Bearer a\t",
            b"Bearer \xc3\xa4",
            b"Bearer \xff",
            b"Bearer, a",
        ] {
            assert_eq!(
                read(&[value]),
                Err(TokenError::InvalidAuthorization),
                "{}",
                String::from_utf8_lossy(value)
            );
        }
    }

    #[test]
    fn other_schemes_are_distinguished() {
        for value in ["Basic dTpw", "Hawk id=\"x\"", "Bearerx y", "Negotiate"] {
            assert_eq!(read(&[value.as_bytes()]), Err(TokenError::OtherScheme));
        }
    }

    #[test]
    fn the_length_limit_is_enforced() {
        let longest = "a".repeat(DEFAULT_TOKEN_BYTES);
        assert!(BearerToken::within(&longest, DEFAULT_TOKEN_BYTES).is_ok());
        let over = format!("Bearer {longest}a");
        assert_eq!(read(&[over.as_bytes()]), Err(TokenError::TooLarge));
        let longest = "a".repeat(MAX_TOKEN_BYTES);
        assert!(BearerToken::new(&longest).is_ok());
        let over = format!("{longest}a");
        for limit in [MAX_TOKEN_BYTES, usize::MAX] {
            let refused = BearerToken::within(&over, limit).err();
            assert_eq!(refused, Some(TokenError::TooLarge));
        }
    }

    #[test]
    fn digests_distinguish_tokens_and_debug_redacts_them() {
        let [a, again, b] = ["aaa", "aaa", "aab"].map(|t| BearerToken::new(t).unwrap());
        assert_eq!(a.digest(), again.digest());
        assert_ne!(a.digest(), b.digest());
        let plain = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, b"aaa");
        assert_ne!(&a.digest().0[..], plain.as_ref(), "the hash is keyed");
        let debug = format!("{a:?} {:?}", a.digest());
        assert_eq!(debug, "BearerToken([redacted]) TokenDigest(..)");
    }
}
