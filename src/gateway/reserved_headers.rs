//! Headers that only hawkgate sets. The proxy strips the caller's copies, and rules may not set
//! them.

use std::borrow::Cow;

/// `name` as recipients may read it, where that differs only in punctuation. CGI and its relatives
/// (WSGI, Rack, PHP) turn hyphens into underscores, and some servers every other character that is
/// neither a letter nor a digit, so `x_real.ip` is read as `x-real-ip`. Allocates only for names
/// with such characters.
pub fn as_read(name: &str) -> Cow<'_, str> {
    // No early exit: nearly every name is read to its end, and without one that is faster.
    if name.bytes().fold(true, |all, byte| all & is_plain(byte)) {
        Cow::Borrowed(name)
    } else {
        Cow::Owned(name.replace(|c: char| !c.is_ascii_alphanumeric(), "-"))
    }
}

/// Whether every recipient reads `byte` of a name as it is. From a table, because this is asked of
/// every byte of every name.
fn is_plain(byte: u8) -> bool {
    const PLAIN: [bool; 256] = {
        let mut plain = [false; 256];
        let mut byte = 0_u8;
        while byte < 128 {
            plain[byte as usize] = byte.is_ascii_alphanumeric() || byte == b'-';
            byte += 1;
        }
        plain
    };
    PLAIN[usize::from(byte)]
}

/// Whether recipients may read `name` as `known`, which must be in lower case; see [`as_read`].
pub fn reads_as(name: &[u8], known: &[u8]) -> bool {
    let same = |(byte, known): (&u8, &u8)| {
        byte.eq_ignore_ascii_case(known) || (*known == b'-' && !byte.is_ascii_alphanumeric())
    };
    name.len() == known.len() && name.iter().zip(known).all(same)
}

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
            | "cf-connecting-ipv6"
            | "cf-pseudo-ipv4"
            | "do-connecting-ip"
            | "fly-client-ip"
            // CGI's `HTTP_PROXY` (CVE-2016-5385).
            | "proxy"
            | "x-originating-ip"
            | "x-override-url"
            | "x-waws-unencoded-url"
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
