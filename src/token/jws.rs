//! A compact JWS taken apart (RFC 7515 §7.1), strictly: nothing in it is believed yet.

use base64::Engine;
use base64::alphabet::URL_SAFE;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, URL_SAFE_NO_PAD};
use serde_json::{Map, Value};

use super::{BearerToken, TokenError, strict_json};

/// The parts of a token that has the right shape.
pub(super) struct Jws<'a> {
    pub(super) header: Map<String, Value>,
    pub(super) claims: Map<String, Value>,
    /// The JWS Signing Input (RFC 7515 §2): the first two segments and the dot between them.
    pub(super) signing_input: &'a [u8],
    /// In base64url, which has been checked.
    pub(super) signature: &'a str,
}

impl<'a> Jws<'a> {
    /// Splits, decodes and reads `token`.
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

/// What a token says of itself. Nobody has checked it.
#[derive(Debug)]
pub struct Inspected {
    /// The header's members.
    pub header: Map<String, Value>,
    /// The claims.
    pub claims: Map<String, Value>,
}

/// Reads a token as strictly as verification does and believes none of it: for showing an
/// operator what was found. `None` for what is no JWT.
pub fn inspect(token: &BearerToken) -> Option<Inspected> {
    let jws = Jws::parse(token.expose()).ok()?;
    Some(Inspected {
        header: jws.header,
        claims: jws.claims,
    })
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

/// base64url without padding, with no stray bits in the last character (RFC 7515 §2).
fn decode(segment: &str) -> Result<Vec<u8>, TokenError> {
    URL_SAFE_NO_PAD
        .decode(segment)
        .map_err(|_| TokenError::Malformed)
}

/// Every `iss` that even a careless reader might find in a token that [`Jws::parse`]
/// refuses; the empty list for an opaque one.
pub(super) fn possible_issuers(token: &str) -> Vec<Value> {
    const CARELESS: GeneralPurpose = GeneralPurpose::new(
        &URL_SAFE,
        GeneralPurposeConfig::new()
            .with_decode_padding_mode(DecodePaddingMode::Indifferent)
            .with_decode_allow_trailing_bits(true),
    );
    let Some(segment) = token.split('.').nth(1) else {
        return Vec::new();
    };
    let segment = segment.replace('+', "-").replace('/', "_");
    let Ok(bytes) = CARELESS.decode(segment) else {
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
    fn takes_a_token_apart() {
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
    fn refuses_other_shapes() {
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
    fn finds_issuers_that_a_careless_reader_would_find() {
        let payload = r#"{"iss":"a","x":{"iss":"no"},"iss":["b"]} trailing"#;
        let padded = base64::engine::general_purpose::STANDARD.encode(payload);
        let found = possible_issuers(&format!("junk.{padded}.junk.more"));
        assert_eq!(found, [Value::from("a"), serde_json::json!(["b"])]);
        assert!(possible_issuers("opaque").is_empty());
        assert!(possible_issuers("a.b.c").is_empty());
    }
}
