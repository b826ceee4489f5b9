//! Header fields that are nobody's but hawkgate's: pure tables, for what strips the
//! caller's copies and for what refuses rules that would set them.

/// Of one connection only (RFC 9110 §7.6.1; RFC 9113 §8.2.2). `name` is lower case.
pub fn is_hop_by_hop(name: &str) -> bool {
    matches!(
        name,
        "connection" | "keep-alive" | "te" | "trailer" | "upgrade" | "http2-settings"
    ) || name.starts_with("proxy-")
}

/// Only hawkgate says upstream who calls, how the request came, and what it really means.
/// `name` is lower case.
pub fn is_owned(name: &str) -> bool {
    matches!(
        name,
        "authorization"
            | "forwarded"
            | "x-real-ip"
            | "x-client-ip"
            | "x-cluster-client-ip"
            | "client-ip"
            | "true-client-ip"
            | "cf-connecting-ip"
            | "fastly-client-ip"
            | "x-host"
            | "x-rewrite-url"
            | "x-http-method"
            | "x-http-method-override"
            | "x-method-override"
    ) || name.starts_with("x-forwarded")
        || name.starts_with("x-original-")
        || name.starts_with("x-hawkgate-")
}

/// What a message's framing, routing or body depends on: never for a rule to set.
pub fn is_structural(name: &str) -> bool {
    matches!(
        name,
        "host" | "transfer-encoding" | "expect" | "cookie" | "range" | "x-request-id"
    ) || name.starts_with("content-")
        || name.starts_with("if-")
        || name.starts_with("sec-")
}
