//! The fields of the CORS protocol in upstreams' responses, and the fields of preflights that are sent
//! upstream (`docs/cors.md`).

use http::header::{HeaderName, VARY};

use super::{HeaderFieldsMut, Result};
use crate::gateway::cors::CorsGrant;
use crate::header_fields::all;

/// Fields of requests and responses that belong to the protocol.
const PREFIX: &str = "access-control-";

/// What a browser sends with a preflight, and what the relay itself reads or sets. Whatever else could
/// identify a caller or change the meaning of the request (`Cookie`, `X-HTTP-Method-Override`) is not
/// sent upstream for a caller that nobody knows.
const PREFLIGHT_FIELDS: [&str; 14] = [
    "accept",
    "accept-encoding",
    "accept-language",
    "cache-control",
    "content-length",
    "host",
    "max-forwards",
    "origin",
    "pragma",
    "referer",
    "traceparent",
    "tracestate",
    "user-agent",
    "x-request-id",
];

/// Replaces the CORS fields of an upstream's response by those of `grant`.
pub(in crate::proxy) fn set_cors_fields(
    head: &mut impl HeaderFieldsMut,
    grant: &CorsGrant,
) -> Result<()> {
    remove_cors_fields(head)?;
    for (name, value) in grant.fields() {
        head.insert_bytes(HeaderName::from_static(name), value.as_bytes())?;
    }
    vary_by_origin(head)
}

/// Removes the CORS fields of an upstream's response.
pub(in crate::proxy) fn remove_cors_fields(head: &mut impl HeaderFieldsMut) -> Result<()> {
    head.retain(|name, _| !name.starts_with(PREFIX))
}

/// Keeps the fields that a preflight may have.
pub(in crate::proxy) fn keep_preflight_fields(head: &mut impl HeaderFieldsMut) -> Result<()> {
    head.retain(|name, _| {
        PREFLIGHT_FIELDS.contains(&name)
            || name.starts_with(PREFIX)
            || name.starts_with("sec-fetch-")
    })
}

/// Adds `Origin` to `Vary`, unless that has it (RFC 9110 §12.5.5).
fn vary_by_origin(head: &mut impl HeaderFieldsMut) -> Result<()> {
    let members = || all(head, &VARY).flat_map(|value| value.split(|b| *b == b','));
    let covers = |member: &[u8]| {
        let member = member.trim_ascii();
        member == b"*" || member.eq_ignore_ascii_case(b"origin")
    };
    if members().any(covers) {
        return Ok(());
    }
    let mut joined = Vec::new();
    for value in all(head, &VARY).filter(|value| !value.trim_ascii().is_empty()) {
        joined.extend_from_slice(value);
        joined.extend_from_slice(b", ");
    }
    joined.extend_from_slice(b"Origin");
    head.insert_bytes(VARY, &joined)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http::{HeaderMap, HeaderValue};

    use super::*;
    use crate::gateway::cors::{AllowedOrigins, CorsPolicy, OriginPattern};
    use crate::header_fields::HeaderFields;

    const APP: &str = "https://app.example.com";

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(*name, HeaderValue::from_static(value));
        }
        map
    }

    fn grant(origin: &'static str) -> CorsGrant {
        let listed = AllowedOrigins::Listed(vec![OriginPattern::parse(APP).unwrap()]);
        Arc::new(CorsPolicy::for_login(listed)).grant(&map(&[("origin", origin)]))
    }

    #[test]
    fn the_upstreams_fields_are_replaced_and_never_doubled() {
        for (origin, expected) in [(APP, Some(APP.as_bytes())), ("null", None)] {
            let mut head = map(&[
                ("access-control-allow-origin", "*"),
                ("access-control-allow-origin", "https://evil.example"),
                ("access-control-allow-credentials", "true"),
                ("access-control-allow-private-network", "true"),
                ("etag", "x"),
            ]);
            set_cors_fields(&mut head, &grant(origin)).unwrap();
            let origins: Vec<_> = all(&head, &http::header::ACCESS_CONTROL_ALLOW_ORIGIN).collect();
            assert_eq!(origins, expected.into_iter().collect::<Vec<_>>());
            for name in [
                "access-control-allow-credentials",
                "access-control-allow-private-network",
            ] {
                assert!(head.get(name).is_none(), "{name}");
            }
            assert_eq!(head["etag"], "x");
            assert_eq!(head["vary"], "Origin");
        }
    }

    #[test]
    fn vary_is_extended_and_not_repeated() {
        for (own, expected) in [
            (&[][..], &["Origin"][..]),
            (&[("vary", "")], &["Origin"]),
            (&[("vary", "Accept-Encoding")], &["Accept-Encoding, Origin"]),
            (
                &[("vary", "Accept"), ("vary", "Cookie")],
                &["Accept, Cookie, Origin"],
            ),
            (&[("vary", "Accept, ORIGIN")], &["Accept, ORIGIN"]),
            (
                &[("vary", "Accept"), ("vary", "origin")],
                &["Accept", "origin"],
            ),
            (&[("vary", "*")], &["*"]),
            (&[("vary", "X-Origin")], &["X-Origin, Origin"]),
        ] {
            let mut head = map(own);
            set_cors_fields(&mut head, &grant("null")).unwrap();
            let lines: Vec<_> = all(&head, &VARY).collect();
            let expected: Vec<_> = expected.iter().map(|line| line.as_bytes()).collect();
            assert_eq!(lines, expected, "{own:?}");
        }
    }

    #[test]
    fn a_preflight_carries_nothing_else_upstream() {
        let mut head = map(&[
            ("origin", APP),
            ("access-control-request-method", "PUT"),
            ("access-control-request-headers", "authorization"),
            ("access-control-request-private-network", "true"),
            ("sec-fetch-mode", "cors"),
            ("user-agent", "browser"),
            ("authorization", "Bearer x"),
            ("proxy-authorization", "Basic x"),
            ("cookie", "a=b"),
            ("x-otp", "123456"),
            ("x-api-key", "k"),
            ("x-http-method-override", "DELETE"),
            ("upgrade", "websocket"),
            ("connection", "upgrade"),
        ]);
        keep_preflight_fields(&mut head).unwrap();
        let mut names: Vec<_> = head.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(
            names,
            [
                "access-control-request-headers",
                "access-control-request-method",
                "access-control-request-private-network",
                "origin",
                "sec-fetch-mode",
                "user-agent",
            ]
        );
        assert!(head.first(&http::header::COOKIE).is_none());
    }
}
