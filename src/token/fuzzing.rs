//! Entry points for fuzzing: tokens, credentials and keys. See [`crate::fuzzing`].

use std::sync::LazyLock;
use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use serde_json::{Map, Value};

use super::basic::BasicCredentials;
use super::bearer::{MAX_TOKEN_BYTES, PresentedToken};
use super::jwk::{KeySet, check_key_set};
use super::jws::{Jws, claimed_issuers};
use super::rules::Rules;
use super::settings::{Algorithm, KeyLocation, OidcIssuer, Profile};
use super::{TokenError, strict_json};
use crate::clock::UnixMillis;

const NOW: UnixMillis = UnixMillis::from_secs(1_790_000_000);

static RULES: LazyLock<Vec<Rules>> = LazyLock::new(|| {
    let rules = |profile: &Profile| {
        Rules::new(&OidcIssuer {
            url: "https://a.example/".into(),
            keys: KeyLocation::File("/nonexistent".into()),
            ca: None,
            audiences: vec!["tc".into()],
            algorithms: Algorithm::ALL.to_vec(),
            profile: *profile,
            format: profile.format(),
            leeway: Duration::from_mins(1),
            clients: None,
            subjects: Some(vec!["me*".into(), "*".into()]),
            verified_max_age: Duration::from_mins(1),
        })
    };
    Profile::ALL.iter().map(rules).collect()
});

/// Fields named `name`, one for each line of `data`.
fn headers(name: &'static str, data: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in data.split(|b| *b == b'\n').take(3) {
        if let Ok(value) = HeaderValue::from_bytes(line) {
            headers.append(name, value);
        }
    }
    headers
}

/// Reads a bearer token from `Authorization`.
pub fn bearer(data: &[u8]) {
    let headers = headers("authorization", data);
    if let Ok(Some(token)) = PresentedToken::from_headers(&headers, MAX_TOKEN_BYTES) {
        let text = token.expose();
        assert_eq!(headers.len(), 1);
        assert!(
            headers["authorization"]
                .as_bytes()
                .ends_with(text.as_bytes())
        );
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-._~+/=".contains(&b);
        assert!(!text.is_empty() && text.bytes().all(allowed));
    }
}

/// Reads Basic credentials; what follows the first empty line is `X-OTP`.
pub fn basic(data: &[u8]) {
    let end = memchr::memmem::find(data, b"\n\n").unwrap_or(data.len());
    let (authorization, code) = data.split_at(end);
    let mut fields = headers("authorization", authorization);
    if let Some(code) = code.get(2..) {
        fields.extend(headers("x-otp", code));
    }
    if let Ok(Some(credentials)) = BasicCredentials::from_headers(&fields) {
        let (username, password) = (credentials.username(), credentials.password().expose());
        assert!(!username.is_empty() && !username.contains(':') && !password.is_empty());
        let texts = [username, password];
        assert!(!texts.concat().contains(char::is_control));
    }
}

/// Parses JSON without repeated members, as it is parsed everywhere else.
pub fn json_object(data: &[u8]) {
    let lenient = serde_json::from_slice::<Map<String, Value>>(data);
    if let Ok(members) = strict_json::object(data) {
        assert_eq!(lenient.ok().as_ref(), Some(&members));
        assert_eq!(every_iss(data), Vec::from_iter(members.get("iss").cloned()));
        judge(&members, &members);
    } else if let Ok(iss) = lenient.map(|mut members| members.remove("iss")) {
        assert!(iss.is_none_or(|iss| every_iss(data).contains(&iss)));
    }
}

fn every_iss(data: &[u8]) -> Vec<Value> {
    strict_json::every_iss(data)
}

/// Parses a compact JWS and judges its header and claims.
pub fn jws(token: &str) {
    let issuers = claimed_issuers(token);
    if let Ok(jws) = Jws::parse(token) {
        assert!(
            jws.claims
                .get("iss")
                .is_none_or(|iss| issuers == [iss.clone()])
        );
        assert!(token.as_bytes().starts_with(jws.signing_input));
        assert!(token.ends_with(jws.signature));
        judge(&jws.header, &jws.claims);
    }
}

fn judge(header: &Map<String, Value>, claims: &Map<String, Value>) {
    for rules in &*RULES {
        let _ = rules.validate_header(header);
        for is_at_jwt in [false, true] {
            if let Ok(valid) = rules.validate_claims(claims, is_at_jwt, NOW) {
                assert!(NOW < rules.accepted_until(valid.expires_at));
            }
        }
        let _ = rules.advice(&TokenError::WrongType, header, claims);
        let _ = rules.validate_introspection(claims, NOW, Duration::from_mins(1));
    }
}

/// Parses a JWK Set and selects keys.
pub fn jwk_set(document: &[u8]) {
    let checked = check_key_set(document, Algorithm::ALL);
    if let Ok(set) = KeySet::parse(document, Algorithm::ALL) {
        assert_eq!(checked.is_ok(), !set.is_empty());
        for algorithm in [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA] {
            for kid in [None, Some("a"), Some("")] {
                if let Ok(keys) = set.select(algorithm, kid) {
                    assert!((1..=4).contains(&keys.len()));
                }
            }
        }
    }
}
