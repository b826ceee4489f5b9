//! Certificates of temporary credentials (taskcluster.md §3): carried, and minted.

mod mint;

use std::collections::HashSet;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

pub use mint::{MAX_LIFETIME, Mint, is_client_id};

use crate::clock::UnixMillis;
use crate::secret::SecretString;

/// The longest certificate that is read, in bytes. About 3 KB fit into a header; a
/// certificate between the two is refused by its length in characters.
pub const MAX_CERTIFICATE_BYTES: usize = 16 * 1024;

/// A certificate as one compact JSON *object*. Carried into `ext`, not interpreted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate(SecretString);

impl Certificate {
    /// From the text of a JSON object, as the login service and `TASKCLUSTER_CERTIFICATE`
    /// give it. White space is dropped, everything else kept as it stands.
    ///
    /// # Errors
    /// When it is longer than [`MAX_CERTIFICATE_BYTES`], no JSON object, or has a member
    /// twice (two readers would see two different certificates).
    pub fn parse(text: &str) -> Result<Self, CertificateError> {
        if text.len() > MAX_CERTIFICATE_BYTES {
            return Err(CertificateError::TooLarge);
        }
        let compact = compact(text);
        if !compact.starts_with('{') || serde_json::from_str::<Unique>(text).is_err() {
            return Err(CertificateError::NotAnObject);
        }
        Ok(Self(SecretString::new(compact)))
    }

    /// From a member of an answer: the object itself, or a string whose content is one.
    ///
    /// # Errors
    /// As [`Certificate::parse`].
    pub fn from_value(value: &Value) -> Result<Self, CertificateError> {
        match value {
            Value::String(text) => Self::parse(text),
            Value::Object(_) => Self::parse(SecretString::new(value.to_string()).expose()),
            _ => Err(CertificateError::NotAnObject),
        }
    }

    /// The object, compact. A secret: it belongs into `ext` and nowhere else.
    pub fn as_json(&self) -> &str {
        self.0.expose()
    }

    /// Its `expiry`, for planning ahead; `None` when it has no such number. The service
    /// still takes it for 5 minutes after.
    pub fn expiry(&self) -> Option<UnixMillis> {
        #[derive(serde::Deserialize)]
        struct Expiry {
            expiry: i64,
        }
        let found: Expiry = serde_json::from_str(self.as_json()).ok()?;
        Some(UnixMillis(found.expiry))
    }

    /// Its `scopes`, roles unexpanded; `None` when it has no such list.
    pub fn scopes(&self) -> Option<Vec<String>> {
        #[derive(serde::Deserialize)]
        struct Scopes {
            scopes: Vec<String>,
        }
        let found: Scopes = serde_json::from_str(self.as_json()).ok()?;
        Some(found.scopes)
    }
}

/// Without the white space between tokens. What is no JSON stays no JSON: text inside
/// quotes is left alone, and the original is what gets checked.
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

/// Any JSON in which no object has a member twice. Keeps nothing.
struct Unique;

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(UniqueVisitor)
    }
}

struct UniqueVisitor;

impl<'de> Visitor<'de> for UniqueVisitor {
    type Value = Unique;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }
    fn visit_unit<E>(self) -> Result<Unique, E> {
        Ok(Unique)
    }
    fn visit_bool<E>(self, _: bool) -> Result<Unique, E> {
        Ok(Unique)
    }
    fn visit_i64<E>(self, _: i64) -> Result<Unique, E> {
        Ok(Unique)
    }
    fn visit_u64<E>(self, _: u64) -> Result<Unique, E> {
        Ok(Unique)
    }
    fn visit_f64<E>(self, _: f64) -> Result<Unique, E> {
        Ok(Unique)
    }
    fn visit_str<E>(self, _: &str) -> Result<Unique, E> {
        Ok(Unique)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Unique, A::Error> {
        while items.next_element::<Unique>()?.is_some() {}
        Ok(Unique)
    }
    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Unique, A::Error> {
        let mut names = HashSet::new();
        while let Some((name, Unique)) = members.next_entry::<String, Unique>()? {
            if !names.insert(name) {
                return Err(A::Error::custom("a member appears twice"));
            }
        }
        Ok(Unique)
    }
}

/// Why a certificate is refused or cannot be made. None of the texts quotes it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// Not a JSON object, or one with a member twice.
    #[error("the certificate is not a JSON object with distinct members")]
    NotAnObject,
    /// Longer than [`MAX_CERTIFICATE_BYTES`].
    #[error("the certificate has more than {MAX_CERTIFICATE_BYTES} bytes")]
    TooLarge,
    /// The name or the issuer is not what Taskcluster takes as a clientId.
    #[error("the {0} is not a valid clientId")]
    InvalidClientId(&'static str),
    /// The name is the issuer's own.
    #[error("the name of temporary credentials must differ from their issuer's")]
    SameName,
    /// The issuer's key is empty.
    #[error("the issuing client's accessToken is empty")]
    NoKey,
    /// A scope that Taskcluster would not take.
    #[error("a scope has characters other than printable ASCII, or ends in more than one `*`")]
    InvalidScope,
    /// Not before it ends, or for longer than 31 days.
    #[error("temporary credentials must be valid for more than nothing and at most 31 days")]
    Validity,
    /// The system gave no randomness for the seed.
    #[error("the system's random generator failed")]
    NoRandomness,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_an_object_compact() {
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
    fn takes_an_object_or_a_string_of_one() {
        let object = serde_json::json!({"version": 1, "expiry": 5});
        let text = Value::String(object.to_string());
        let from_object = Certificate::from_value(&object).unwrap();
        assert_eq!(from_object, Certificate::from_value(&text).unwrap());
        assert_eq!(from_object.expiry(), Some(UnixMillis(5)));
        assert_eq!(Certificate::parse("{}").unwrap().expiry(), None);
    }

    #[test]
    fn refuses_everything_else() {
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
    fn bounds_its_size() {
        let text = |fill: usize| format!("{{\"a\":\"{}\"}}", "x".repeat(fill));
        let frame = text(0).len();
        assert!(Certificate::parse(&text(MAX_CERTIFICATE_BYTES - frame)).is_ok());
        assert_eq!(
            Certificate::parse(&text(MAX_CERTIFICATE_BYTES - frame + 1)),
            Err(CertificateError::TooLarge)
        );
    }
}
