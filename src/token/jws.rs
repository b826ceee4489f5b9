//! Strict parsing of a JWS in compact serialization (RFC 7515 §7.1). None of its content is trusted
//! yet.

use base64::Engine;
use base64::alphabet::URL_SAFE;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, URL_SAFE_NO_PAD};
use serde_json::{Map, Value};

use super::{BearerToken, TokenError, strict_json};

/// The parts of a well-formed token.
pub(super) struct Jws<'a> {
    pub(super) header: Map<String, Value>,
    pub(super) claims: Map<String, Value>,
    /// The JWS Signing Input (RFC 7515 §2): the first two segments and the dot between them.
    pub(super) signing_input: &'a [u8],
    /// Valid base64url.
    pub(super) signature: &'a str,
}

impl<'a> Jws<'a> {
    /// Splits, decodes and parses `token`.
    pub(super) fn parse(token: &'a str) -> Result<Self, TokenError> {
        let [header, claims, signature] = segments(token)?;
        let jws = Self {
            header: strict_json::object(&decode(header)?)?,
            claims: strict_json::object(&decode(claims)?)?,
            signing_input: &token.as_bytes()[..header.len() + 1 + claims.len()],
            signature,
        };
        decode(signature)?;
        Ok(jws)
    }
}

/// The unverified content of a token.
#[derive(Debug)]
pub struct UnverifiedToken {
    /// The header parameters.
    pub header: Map<String, Value>,
    /// The claims.
    pub claims: Map<String, Value>,
}

/// Parses a token as strictly as verification does, without verifying it, to show its content to an
/// operator. `None` if it is not a JWT.
pub fn inspect(token: &BearerToken) -> Option<UnverifiedToken> {
    inspect_text(token.expose()).ok()
}

/// Like [`inspect`], for a text of any length.
///
/// # Errors
/// What keeps it from being a JWT: [`TokenError::Malformed`], [`TokenError::Encrypted`] or
/// [`TokenError::DuplicateMember`].
pub fn inspect_text(text: &str) -> Result<UnverifiedToken, TokenError> {
    let jws = Jws::parse(text)?;
    Ok(UnverifiedToken {
        header: jws.header,
        claims: jws.claims,
    })
}

/// The header of a text whose first segment is that of a JWS or a JWE, whatever follows it.
pub fn inspect_header(text: &str) -> Option<Map<String, Value>> {
    let (header, _) = text.split_once('.')?;
    strict_json::object(&decode(header).ok()?).ok()
}

fn segments(token: &str) -> Result<[&str; 3], TokenError> {
    let mut parts = token.split('.');
    let first_three = [parts.next(), parts.next(), parts.next()];
    match (first_three, parts.count()) {
        ([Some(header), Some(claims), Some(signature)], 0) => Ok([header, claims, signature]),
        ([Some(_), Some(_), Some(_)], 2) => Err(TokenError::Encrypted),
        _ => Err(TokenError::Malformed),
    }
}

/// Whether a token is not a JWT that was damaged on its way but something else: it has only one
/// segment, or the first cannot be the header of a JWS or JWE, which is base64url of text that begins
/// with a brace.
pub(super) fn is_opaque(token: &str) -> bool {
    let Some((header, _)) = token.split_once('.') else {
        return true;
    };
    // Four characters are three bytes, which may be white space before the brace.
    let start = decode(header.get(..4).unwrap_or(header)).unwrap_or_default();
    let text = start.trim_ascii_start();
    start.is_empty() || text.first().is_some_and(|byte| *byte != b'{')
}

/// Decodes base64url without padding or non-zero trailing bits (RFC 7515 §2).
fn decode(segment: &str) -> Result<Vec<u8>, TokenError> {
    URL_SAFE_NO_PAD
        .decode(segment)
        .map_err(|_| TokenError::Malformed)
}

/// Every `iss` that a lenient parser might find in a token that [`Jws::parse`] rejects; empty for
/// an opaque token.
pub(super) fn claimed_issuers(token: &str) -> Vec<Value> {
    const LENIENT: GeneralPurpose = GeneralPurpose::new(
        &URL_SAFE,
        GeneralPurposeConfig::new()
            .with_decode_padding_mode(DecodePaddingMode::Indifferent)
            .with_decode_allow_trailing_bits(true),
    );
    let Some(segment) = token.split('.').nth(1) else {
        return Vec::new();
    };
    let segment = segment.replace('+', "-").replace('/', "_");
    let Ok(bytes) = LENIENT.decode(segment) else {
        return Vec::new();
    };
    strict_json::every_iss(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(text: &str) -> String {
        URL_SAFE_NO_PAD.encode(text)
    }

    #[test]
    fn a_well_formed_jws_is_parsed() {
        let token = format!(
            "{}.{}.AQID",
            encoded("{\"alg\":\"x\"}"),
            encoded("{\"a\":1}")
        );
        let jws = Jws::parse(&token).unwrap();
        assert_eq!(jws.header["alg"], "x");
        assert_eq!(jws.claims["a"], 1);
        assert_eq!(jws.signature, "AQID");
        assert_eq!(jws.signing_input, &token.as_bytes()[..token.len() - 5]);
    }

    #[test]
    fn malformed_and_encrypted_tokens_are_refused() {
        let (h, c) = (encoded("{}"), encoded("{\"a\":1}"));
        for token in [
            String::new(),
            "opaque".into(),
            format!("{h}.{c}"),
            format!("{h}.{c}.AQID."),
            format!(".{h}.{c}.AQID"),
            format!("{h}.{c}.AQID=="),
            format!("{h}=.{c}.AQID"),
            format!("{h}.{c}.AR"),
            format!("{h}.{c}.+/8"),
            format!("{h}..AQID"),
            format!(".{c}.AQID"),
            format!("{h}.{c}.A"),
            format!("{}.{c}.AQID", encoded("{\"alg\"")),
        ] {
            assert_eq!(
                Jws::parse(&token).err(),
                Some(TokenError::Malformed),
                "{token}"
            );
        }
        let jwe = format!("{h}..{c}.AQID.AQID");
        assert_eq!(Jws::parse(&jwe).err(), Some(TokenError::Encrypted));
    }

    #[test]
    fn opaque_tokens_are_told_from_damaged_jwts() {
        let (h, c) = (encoded("{\"alg\":\"x\"}"), encoded("{\"a\":1}"));
        for token in [
            String::new(),
            "opaque".into(),
            h.clone(),
            "gho_16C7e42F292c6912E7710c838347Ae178B4a".into(),
            "ya29.a0AfH6SMBx-1".into(),
            "a.b.c".into(),
            "v4.public.eyJhIjoxfQ".into(),
            "AQ.AQ.AQ.AQ.AQ".into(),
            format!(".{h}.{c}.AQID"),
            format!(".{c}.AQID"),
            format!("{}.{c}.AQID", encoded("[{}]")),
        ] {
            assert!(is_opaque(&token), "{token}");
        }
        for damaged in [
            format!("{h}.{c}"),
            format!("{h}."),
            format!("{h}.{c}.AQID.AQID.AQID"),
            format!("{}.{c}.AQID", encoded(" \n{}")),
            format!("{}.{c}.AQID", encoded("{}")),
            format!("{}.{c}.AQID", &encoded("{\"alg\":\"x\"}")[..5]),
        ] {
            assert!(!is_opaque(&damaged), "{damaged}");
        }
    }

    #[test]
    fn every_issuer_that_a_lenient_parser_would_find_is_found() {
        let payload = r#"{"iss":"a","x":{"iss":"no"},"iss":["b"]} trailing"#;
        let padded = base64::engine::general_purpose::STANDARD.encode(payload);
        let found = claimed_issuers(&format!("junk.{padded}.junk.more"));
        assert_eq!(found, [Value::from("a"), serde_json::json!(["b"])]);
        assert!(claimed_issuers("opaque").is_empty());
        assert!(claimed_issuers("a.b.c").is_empty());
    }
}
