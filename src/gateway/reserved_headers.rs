//! Headers that only hawkgate sets. The proxy strips the caller's copies, and rules may not set
//! them.

/// Whether a header applies to one connection only (RFC 9110 §7.6.1, RFC 9113 §8.2.2). `name`
/// must be lower case.
pub fn is_hop_by_hop(name: &str) -> bool {
    matches!(
        name,
        "connection" | "keep-alive" | "te" | "trailer" | "upgrade" | "http2-settings"
    ) || name.starts_with("proxy-")
}

/// Whether a header identifies the caller or the original request, or overrides the method or
/// URL. `name` must be lower case.
pub fn is_reserved(name: &str) -> bool {
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

/// Whether framing, routing or the interpretation of the body depends on a header. `name` must
/// be lower case.
pub fn is_structural(name: &str) -> bool {
    matches!(
        name,
        "host" | "transfer-encoding" | "expect" | "cookie" | "range" | "x-request-id"
    ) || name.starts_with("content-")
        || name.starts_with("if-")
        || name.starts_with("sec-")
}
