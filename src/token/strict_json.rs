//! A JSON parser that refuses duplicate members at any depth, so that no two parsers can interpret
//! a token differently (RFC 7515 §4, RFC 7519 §4).

use std::fmt;

use serde::Deserializer;
use serde::de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::TokenError;

const DUPLICATE: &str = "duplicate member";

/// Parses a single JSON object. serde_json limits the depth to 128.
pub(super) fn object(bytes: &[u8]) -> Result<Map<String, Value>, TokenError> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = Strict
        .deserialize(&mut deserializer)
        .and_then(|value| deserializer.end().map(|()| value));
    match value {
        Ok(Value::Object(map)) => Ok(map),
        Err(e) if e.is_data() && e.to_string().starts_with(DUPLICATE) => {
            Err(TokenError::DuplicateMember)
        }
        _ => Err(TokenError::Malformed),
    }
}

struct Strict;

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, v: bool) -> Result<Value, E> {
        Ok(Value::Bool(v))
    }

    fn visit_i64<E: Error>(self, v: i64) -> Result<Value, E> {
        Ok(Value::from(v))
    }

    fn visit_u64<E: Error>(self, v: u64) -> Result<Value, E> {
        Ok(Value::from(v))
    }

    fn visit_f64<E: Error>(self, v: f64) -> Result<Value, E> {
        Ok(Value::from(v))
    }

    fn visit_str<E: Error>(self, v: &str) -> Result<Value, E> {
        Ok(Value::from(v))
    }

    fn visit_string<E: Error>(self, v: String) -> Result<Value, E> {
        Ok(Value::from(v))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(Strict)? {
            items.push(item);
        }
        // The value may be cached for long, and growing leaves up to half of the memory unused.
        items.shrink_to_fit();
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut members = Map::new();
        while let Some(name) = map.next_key::<String>()? {
            let value = map.next_value_seed(Strict)?;
            if members.insert(name, value).is_some() {
                return Err(A::Error::custom(DUPLICATE));
            }
        }
        Ok(Value::Object(members))
    }
}

/// Every top-level `iss` of a JSON object, including duplicates, even if the rest is malformed.
/// Used to decide which issuer a token might name, never to trust it.
pub(super) fn every_iss(bytes: &[u8]) -> Vec<Value> {
    let mut found = Vec::new();
    let text = String::from_utf8_lossy(bytes);
    // An error is ignored: what was found before it counts.
    let _ = serde_json::Deserializer::from_str(&text).deserialize_map(EveryIss(&mut found));
    found
}

struct EveryIss<'a>(&'a mut Vec<Value>);

impl<'de> Visitor<'de> for EveryIss<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key::<String>()? {
            if name == "iss" {
                self.0.push(map.next_value()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_object_is_parsed_as_by_serde_json() {
        let text = r#"{"a":[1,-2,3.5,true,null,"x\u00e9"],"b":{"a":{}},"":0}"#;
        let expected: Value = serde_json::from_str(text).unwrap();
        assert_eq!(Value::Object(object(text.as_bytes()).unwrap()), expected);
        assert_eq!(Value::Object(object(b" {} ").unwrap()), json!({}));
    }

    #[test]
    fn duplicate_members_are_refused_at_any_depth() {
        for text in [
            r#"{"a":1,"a":1}"#,
            r#"{"a":1,"b":2,"\u0061":3}"#,
            r#"{"o":{"a":1,"a":2}}"#,
            r#"{"l":[[{"a":1,"a":2}]]}"#,
        ] {
            assert_eq!(object(text.as_bytes()), Err(TokenError::DuplicateMember));
        }
    }

    #[test]
    fn anything_other_than_a_single_object_is_refused() {
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(4000), "]".repeat(4000));
        for text in [
            &b""[..],
            b"[]",
            b"\"x\"",
            b"{} {}",
            b"{}x",
            b"\xef\xbb\xbf{}",
            b"{\"a\":NaN}",
            b"{\"a\":1e999}",
            b"{\"a\":\"\\ud800\"}",
            b"{\"a\":\"\xff\"}",
            b"{\"a\":1,}",
            b"{'a':1}",
            deep.as_bytes(),
        ] {
            assert_eq!(object(text), Err(TokenError::Malformed));
        }
    }
}
