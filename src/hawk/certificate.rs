//! Certificates of temporary credentials: parsed, carried in `ext`, and minted
//! (`docs/design/taskcluster.md`, "Temporary credentials").

mod mint;

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

pub use mint::{MAX_LIFETIME, Mint, is_client_id};

use crate::clock::UnixMillis;
use crate::secret::SecretString;

/// The longest certificate that is parsed, in bytes. Only about 3 KB fit into a header; for
/// certificates between the two, the error can state the header's length.
pub const MAX_CERTIFICATE_BYTES: usize = 16 * 1024;

/// A certificate as a compact JSON *object*. It is carried into `ext` without interpretation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate(SecretString);

impl Certificate {
    /// Parses the text of a JSON object, as the login service and `TASKCLUSTER_CERTIFICATE`
    /// supply it. White space is dropped; everything else is kept byte for byte.
    ///
    /// # Errors
    /// If the text is longer than [`MAX_CERTIFICATE_BYTES`], is not a JSON object, or has a
    /// duplicate member, which different parsers would resolve differently.
    pub fn parse(text: &str) -> Result<Self, CertificateError> {
        if text.len() > MAX_CERTIFICATE_BYTES {
            return Err(CertificateError::TooLarge);
        }
        let compact = compact(text);
        if !compact.starts_with('{') || serde_json::from_str::<DistinctMembers>(text).is_err() {
            return Err(CertificateError::NotAnObject);
        }
        Ok(Self(SecretString::new(compact)))
    }

    /// Parses a member of a response: either the object itself, or a string that contains it.
    ///
    /// # Errors
    /// As for [`Certificate::parse`].
    pub fn from_value(value: &Value) -> Result<Self, CertificateError> {
        match value {
            Value::String(text) => Self::parse(text),
            Value::Object(_) => Self::parse(SecretString::new(value.to_string()).expose()),
            _ => Err(CertificateError::NotAnObject),
        }
    }

    /// The compact object. A secret: it belongs in `ext` and nowhere else.
    pub fn as_json(&self) -> &str {
        self.0.expose()
    }

    /// The `expiry` member, if there is one. The service accepts the certificate for another
    /// 5 minutes.
    pub fn expiry(&self) -> Option<UnixMillis> {
        #[derive(serde::Deserialize)]
        struct Expiry {
            expiry: i64,
        }
        let found: Expiry = serde_json::from_str(self.as_json()).ok()?;
        Some(UnixMillis(found.expiry))
    }

    /// Checks what the auth service requires of every certificate, without its clock and the
    /// issuer's key. A certificate that fails is answered with 401, always.
    ///
    /// # Errors
    /// [`CertificateError::Member`] with the first wrong member.
    pub fn check(&self) -> Result<(), CertificateError> {
        let wrong = |member| Err(CertificateError::Member(member));
        let Ok(members) = serde_json::from_str::<Members<'_>>(self.as_json()) else {
            return wrong("members version, scopes, start, expiry, seed and signature");
        };
        if members.version != 1 {
            return wrong("version, which must be 1");
        }
        if !members
            .scopes
            .iter()
            .all(|scope| super::scope::is_valid(scope))
        {
            return wrong("scopes");
        }
        let validity = UnixMillis(members.start).until(UnixMillis(members.expiry));
        if validity.is_zero() || validity > MAX_LIFETIME {
            return wrong("start and expiry, which must be at most 31 days apart");
        }
        if members.seed.len() != SEED_CHARS {
            return wrong("seed, which must have 44 characters");
        }
        if !STANDARD
            .decode(members.signature.as_bytes())
            .is_ok_and(|mac| mac.len() == 32)
        {
            return wrong("signature");
        }
        if !members.issuer.as_deref().is_none_or(is_client_id) {
            return wrong("issuer");
        }
        Ok(())
    }

    /// The `scopes` member, if there is one, with roles unexpanded.
    pub fn scopes(&self) -> Option<Vec<String>> {
        #[derive(serde::Deserialize)]
        struct Scopes {
            scopes: Vec<String>,
        }
        let found: Scopes = serde_json::from_str(self.as_json()).ok()?;
        Some(found.scopes)
    }
}

/// The length of a seed: two slugids.
const SEED_CHARS: usize = 44;

/// The members that the auth service reads.
#[derive(serde::Deserialize)]
struct Members<'a> {
    version: i64,
    scopes: Vec<String>,
    start: i64,
    expiry: i64,
    #[serde(borrow)]
    seed: Cow<'a, str>,
    #[serde(borrow)]
    signature: Cow<'a, str>,
    issuer: Option<String>,
}

/// Removes the white space between tokens. This cannot turn invalid JSON into valid JSON
/// unnoticed: quoted text is not changed, and the caller validates the original.
fn compact(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let (mut quoted, mut escaped) = (false, false);
    for c in text.chars() {
        if quoted {
            let closes = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            quoted = !closes;
        } else if matches!(c, ' ' | '\t' | '\r' | '\n') {
            continue;
        } else {
            quoted = c == '"';
        }
        out.push(c);
    }
    out
}

/// Any JSON value in which no object has a duplicate member. Holds no data.
struct DistinctMembers;

impl<'de> Deserialize<'de> for DistinctMembers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(DistinctMembersVisitor)
    }
}

struct DistinctMembersVisitor;

impl<'de> Visitor<'de> for DistinctMembersVisitor {
    type Value = DistinctMembers;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }
    fn visit_unit<E>(self) -> Result<DistinctMembers, E> {
        Ok(DistinctMembers)
    }
    fn visit_bool<E>(self, _: bool) -> Result<DistinctMembers, E> {
        Ok(DistinctMembers)
    }
    fn visit_i64<E>(self, _: i64) -> Result<DistinctMembers, E> {
        Ok(DistinctMembers)
    }
    fn visit_u64<E>(self, _: u64) -> Result<DistinctMembers, E> {
        Ok(DistinctMembers)
    }
    fn visit_f64<E>(self, _: f64) -> Result<DistinctMembers, E> {
        Ok(DistinctMembers)
    }
    fn visit_str<E>(self, _: &str) -> Result<DistinctMembers, E> {
        Ok(DistinctMembers)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<DistinctMembers, A::Error> {
        while items.next_element::<DistinctMembers>()?.is_some() {}
        Ok(DistinctMembers)
    }
    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<DistinctMembers, A::Error> {
        let mut names = HashSet::new();
        while let Some((name, DistinctMembers)) = members.next_entry::<String, DistinctMembers>()? {
            if !names.insert(name) {
                return Err(A::Error::custom("duplicate member"));
            }
        }
        Ok(DistinctMembers)
    }
}

/// Why a certificate is rejected or cannot be minted. No message quotes the certificate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// Not a JSON object, or one with a duplicate member.
    #[error("the certificate is not a JSON object with distinct members")]
    NotAnObject,
    /// Longer than [`MAX_CERTIFICATE_BYTES`].
    #[error("the certificate has more than {MAX_CERTIFICATE_BYTES} bytes")]
    TooLarge,
    /// Taskcluster would not accept this member, or one of these.
    #[error("the certificate is not one of Taskcluster's: check its {0}")]
    Member(&'static str),
    /// Taskcluster would not accept the named clientId.
    #[error("the {0} is not a valid clientId")]
    InvalidClientId(&'static str),
    /// The clientId is the issuer's own.
    #[error("the clientId of temporary credentials must differ from their issuer's")]
    SameName,
    /// The issuer's accessToken is empty.
    #[error("the issuing client's accessToken is empty")]
    NoKey,
    /// Taskcluster would not accept a scope.
    #[error("a scope contains characters other than printable ASCII, or ends in more than one `*`")]
    InvalidScope,
    /// The validity is not between 0 and 31 days.
    #[error("temporary credentials must expire after their start, and at most 31 days after it")]
    Validity,
    /// The operating system supplied no random bytes for the seed.
    #[error("the system's random number generator failed")]
    NoRandomness,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_kept_as_compact_json() {
        let parsed = Certificate::parse(
            " {\"version\" : 1,\n\t\"scopes\": [ \"a b\", \"c \\\" d\\\\\" ] , \"n\":1.50 }\r\n",
        )
        .unwrap();
        assert_eq!(
            parsed.as_json(),
            r#"{"version":1,"scopes":["a b","c \" d\\"],"n":1.50}"#
        );
        assert_eq!(format!("{parsed:?}"), "Certificate([redacted])");
    }

    #[test]
    fn an_object_or_a_string_that_contains_one_is_accepted() {
        let object = serde_json::json!({"version": 1, "expiry": 5});
        let text = Value::String(object.to_string());
        let from_object = Certificate::from_value(&object).unwrap();
        assert_eq!(from_object, Certificate::from_value(&text).unwrap());
        assert_eq!(from_object.expiry(), Some(UnixMillis(5)));
        assert_eq!(Certificate::parse("{}").unwrap().expiry(), None);
    }

    #[test]
    fn anything_but_an_object_with_distinct_members_is_rejected() {
        let nested = "[".repeat(5000);
        let table = [
            "",
            " ",
            "null",
            "[]",
            "1",
            "\"{}\"",
            "{",
            "{} {}",
            "{}x",
            "{a:1}",
            "{\"a\":1,}",
            "{\"a\":1,\"a\":1}",
            "{\"a\":1,\"\\u0061\":2}",
            "{\"x\":{\"a\":1,\"a\":2}}",
            "{\"x\":[{\"a\":1,\"a\":2}]}",
            "{\"a\":\"\\ud800\"}",
            "{\"a\":\"\n\"}",
            "{\"a\":1 2}",
            "{\"a\":tr ue}",
            "\u{feff}{}",
            &format!("{{\"a\":{nested}"),
        ];
        for text in table {
            assert_eq!(
                Certificate::parse(text),
                Err(CertificateError::NotAnObject),
                "{text}"
            );
        }
        for value in [Value::Null, Value::Bool(true), serde_json::json!([1])] {
            assert!(Certificate::from_value(&value).is_err());
        }
    }

    #[test]
    fn a_certificate_that_the_service_would_never_accept_is_found() {
        let minted = Mint {
            issuer: "issuer",
            issuer_token: &SecretString::from("issuer-token"),
            client_id: "client",
            scopes: &["a:*".to_owned()],
            start: UnixMillis(1_000),
            expiry: UnixMillis(2_000),
        };
        let certificate = minted.sign().unwrap().certificate.unwrap();
        assert_eq!(certificate.check(), Ok(()));
        let json: Value = serde_json::from_str(certificate.as_json()).unwrap();
        for (member, value) in [
            ("version", Value::from(2)),
            ("version", Value::from("1")),
            ("scopes", Value::from("a:*")),
            ("scopes", serde_json::json!(["a**"])),
            ("start", Value::from(2_000)),
            ("start", Value::Null),
            ("expiry", Value::from(32_u64 * 24 * 3600 * 1000)),
            ("seed", Value::from("short")),
            ("signature", Value::from("short")),
            ("issuer", Value::from("is suer")),
        ] {
            let mut changed = json.clone();
            changed[member] = value;
            let changed = Certificate::from_value(&changed).unwrap();
            let error = changed.check().unwrap_err();
            assert!(error.to_string().contains(member), "{member}: {error}");
        }
        let unnamed = Certificate::from_value(&serde_json::json!({})).unwrap();
        assert!(unnamed.check().is_err());
    }

    #[test]
    fn the_size_of_a_certificate_is_bounded() {
        let text = |fill: usize| format!("{{\"a\":\"{}\"}}", "x".repeat(fill));
        let frame = text(0).len();
        assert!(Certificate::parse(&text(MAX_CERTIFICATE_BYTES - frame)).is_ok());
        assert_eq!(
            Certificate::parse(&text(MAX_CERTIFICATE_BYTES - frame + 1)),
            Err(CertificateError::TooLarge)
        );
    }
}
