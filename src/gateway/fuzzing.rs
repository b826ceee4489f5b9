//! Entry points for fuzzing: rules, paths, and texts of callers and upstreams. See
//! [`crate::fuzzing`].

use std::sync::LazyLock;

use http::{HeaderMap, HeaderValue};
use serde_json::{Map, Value};

use super::bewit::TargetUrl;
use super::path::{is_plain, readings};
use super::rule::{Attributes, Expression, MAX_SOURCE_BYTES, RequestAttributes};
use super::{ScopesVerdict, UnauthorizedBody};

static CLAIMS: LazyLock<Map<String, Value>> = LazyLock::new(|| {
    let claims = serde_json::json!({
        "sub": "me", "n": 9_223_372_036_854_775_807_i64, "f": 1.5, "t": true, "z": null,
        "l": ["a", "b", 1], "m": {"a": {"b": "c"}}, "text": "käthe",
    });
    claims.as_object().cloned().unwrap_or_default()
});

/// Compiles a rule and evaluates it.
pub fn rule(source: &str) {
    let compiled = match Expression::compile(source) {
        Ok(compiled) => compiled,
        Err(error) => {
            assert!(!error.problem.is_empty() && !error.remedy.is_empty());
            return;
        }
    };
    assert!(source.len() <= MAX_SOURCE_BYTES);
    let attributes = Attributes {
        claims: Some(&CLAIMS),
        issuer: "a",
        subject: "me",
        client: "app",
        scopes: &["read".to_owned()],
        request: RequestAttributes {
            method: "GET",
            host: "a.example",
            path: "/api/queue/v1/task",
            user_agent: "curl",
            address: Some([203, 0, 113, 7].into()),
            certificate: None,
        },
    };
    let _ = compiled.is_true(&attributes);
    let _ = compiled.text(&attributes);
}

/// Computes how upstreams may read a path.
pub fn path_readings(path: &str) {
    if let Ok(found) = readings(path) {
        assert!(!is_plain(path) || found.is_empty());
        assert!(found.iter().all(|reading| reading != path));
        let bytes: usize = found.iter().map(String::len).sum();
        assert!(found.len() <= 64 && bytes <= 64 * 1024);
    }
}

/// Parses a URL to be signed with a bewit.
pub fn bewit_url(text: &str) {
    let _ = crate::hawk::bewit::has_bewit(text);
    let _ = TargetUrl::parse(text);
}

/// Judges an upstream's 401: its body at once, and in small pieces, which must not be judged
/// differently unless they are compressed, because damaged gzip ends earlier the more of it is there.
pub fn unauthorized_body(data: &[u8]) {
    let Some((first, body)) = data.split_first() else {
        return;
    };
    let mut headers = HeaderMap::new();
    headers.insert("content-type", HeaderValue::from_static("application/json"));
    if first & 1 == 1 {
        headers.insert("content-encoding", HeaderValue::from_static("gzip"));
    }
    let (Some(mut whole), Some(mut pieces)) = (
        UnauthorizedBody::new(&headers),
        UnauthorizedBody::new(&headers),
    ) else {
        return;
    };
    let at_once = whole.add(body);
    let mut verdicts = body
        .chunks(body.len() / 16 + 1)
        .map(|piece| pieces.add(piece));
    let decided = verdicts.find(|verdict| *verdict != ScopesVerdict::Undecided);
    if let Some(decided) = decided
        && first & 1 == 0
    {
        assert_eq!(at_once, decided);
    }
}
