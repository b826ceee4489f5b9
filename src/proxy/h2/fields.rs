//! Field lines in HTTP/2.

use http::HeaderMap;

use crate::proxy::head::FieldList;

/// Whether a field concerns the connection (RFC 9113 §8.2.2). `TE` may only be `trailers`.
pub(super) fn is_connection_specific(name: &str, value: &[u8]) -> bool {
    match name {
        "connection" | "keep-alive" | "proxy-connection" | "transfer-encoding" | "upgrade" => true,
        "te" => !value.eq_ignore_ascii_case(b"trailers"),
        _ => false,
    }
}

/// Copies the field lines for which `keep`, called with the lower-case name, returns true.
pub(super) fn list(map: &HeaderMap, keep: impl Fn(&str) -> bool) -> FieldList {
    let length = map
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len());
    let mut list = FieldList::with_capacity(map.len(), length.sum());
    for (name, value) in map {
        if keep(name.as_str()) {
            list.push_lower(name, value.as_bytes());
        }
    }
    list
}
