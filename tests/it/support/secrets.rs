//! Collects the secrets of a test, so that logs, responses and metrics can be searched for them in
//! every encoding in which they might leak.

use std::sync::Mutex;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use serde_json::Value;

/// Shorter strings would be found everywhere.
const SHORTEST: usize = 8;

/// The secrets of a test, each with a name to report instead of the value.
#[derive(Debug, Default)]
pub(crate) struct Secrets(Mutex<Vec<(String, String)>>);

impl Secrets {
    /// Adds one.
    pub(crate) fn add(&self, name: &str, value: &str) {
        assert!(value.len() >= SHORTEST, "{name} is too short to search for");
        self.0
            .lock()
            .unwrap()
            .push((name.to_owned(), value.to_owned()));
    }

    /// Adds a JWT: the whole, its payload and its signature.
    pub(crate) fn token(&self, name: &str, token: &str) {
        self.add(name, token);
        for (part, text) in ["header", "payload", "signature"]
            .iter()
            .zip(token.split('.'))
            .skip(1)
        {
            if text.len() >= SHORTEST {
                self.add(&format!("{name} ({part})"), text);
            }
        }
    }

    /// Adds Taskcluster credentials: the access token and the secret parts of the certificate.
    pub(crate) fn credentials(&self, credentials: &Value) {
        let name = credentials["clientId"].as_str().unwrap_or("client");
        self.add(
            &format!("{name}: accessToken"),
            credentials["accessToken"].as_str().unwrap(),
        );
        let Some(text) = credentials["certificate"].as_str() else {
            return;
        };
        self.add(&format!("{name}: certificate"), text);
        let certificate: Value = serde_json::from_str(text).unwrap();
        for part in ["seed", "signature"] {
            self.add(
                &format!("{name}: certificate.{part}"),
                certificate[part].as_str().unwrap(),
            );
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.lock().unwrap().is_empty()
    }

    /// Which secrets `text` contains, and in which form.
    pub(crate) fn found_in(&self, text: &str) -> Vec<String> {
        let mut found = Vec::new();
        for (name, value) in self.0.lock().unwrap().iter() {
            for (form, written) in forms(value) {
                if let Some(at) = text.find(&written) {
                    found.push(format!("{name}, {form}{}", logged_by(text, at)));
                }
            }
        }
        found
    }

    /// Fails when `text` contains any secret; names the secret without showing it.
    pub(crate) fn assert_absent(&self, place: &str, text: &str) {
        let found = self.found_in(text);
        assert!(found.is_empty(), "{place} contains {found:?}");
    }
}

/// If the byte at `at` belongs to a line of a JSON log: which part of the program wrote it.
fn logged_by(text: &str, at: usize) -> String {
    let start = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
    let line = text[start..].lines().next().unwrap_or_default();
    match serde_json::from_str::<Value>(line) {
        Ok(line) if line["target"].is_string() => format!(", logged by {}", line["target"]),
        _ => String::new(),
    }
}

/// The encodings in which a secret could appear.
fn forms(value: &str) -> Vec<(&'static str, String)> {
    let bytes = value.as_bytes();
    let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    let json = Value::from(value).to_string();
    let mut forms = vec![
        ("raw", value.to_owned()),
        ("in JSON", json[1..json.len() - 1].to_owned()),
        ("percent-encoded", percent(value)),
        ("in upper-case hex", hex.to_uppercase()),
        ("in hex", hex),
        ("in base64", STANDARD.encode(bytes)),
    ];
    // Within a longer string that was encoded, at each of the three alignments, without the
    // characters that depend on the neighbouring bytes.
    for shift in 0..3 {
        let mut padded = vec![0; shift];
        padded.extend_from_slice(bytes);
        let whole = padded.len() / 3 * 3;
        let skip = if shift == 0 { 0 } else { 4 };
        for (form, engine) in [
            ("within base64", STANDARD_NO_PAD),
            ("within base64url", URL_SAFE_NO_PAD),
        ] {
            forms.push((form, engine.encode(&padded[..whole])[skip..].to_owned()));
        }
    }
    forms.dedup_by(|a, b| a.1 == b.1);
    forms
}

fn percent(value: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    value
        .bytes()
        .map(|b| {
            if plain(b) {
                char::from(b).to_string()
            } else {
                format!("%{b:02X}")
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_found_in_every_encoding() {
        let secrets = Secrets::default();
        secrets.add("key", "s3cret/with+\"odd\" signs");
        let value = "s3cret/with+\"odd\" signs";
        let hex: String = value.bytes().map(|b| format!("{b:02x}")).collect();
        for leaking in [
            format!("a {value} b"),
            serde_json::json!({ "a": value }).to_string(),
            format!("?a={}", percent(value)),
            STANDARD.encode(value),
            STANDARD.encode(format!("user:{value}@")),
            URL_SAFE_NO_PAD.encode(format!("ab{value}")),
            URL_SAFE_NO_PAD.encode(format!("abc{value}defg")),
            hex.to_uppercase(),
            hex,
        ] {
            assert!(!secrets.found_in(&leaking).is_empty(), "{leaking}");
        }
        assert!(secrets.found_in("s3cret/with, but not the rest").is_empty());
    }

    #[test]
    fn a_token_is_found_by_its_signature_alone() {
        let secrets = Secrets::default();
        secrets.token("t", "aaaaaaaaaa.bbbbbbbbbb.cccccccccc");
        assert_eq!(secrets.found_in("x cccccccccc"), ["t (signature), raw"]);
        // The header only names the algorithm and the key.
        assert!(secrets.found_in("x aaaaaaaaaa").is_empty());
    }
}
