//! The header fields that are forwarded, by name.

use crate::gateway::reserved_headers::{is_hop_by_hop, is_reserved};

/// What is done with a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeaderAction {
    /// It is removed.
    Remove,
    /// It is forwarded, unless `Connection` lists it.
    Keep,
    /// It is always forwarded, because the framing or an upgrade depends on it.
    Require,
}

/// Returns the action for a field of a request. `name` is in lower case, as in the `http` crate.
pub(super) fn request_action(name: &str, upgrade: bool) -> HeaderAction {
    // Some servers treat `_` as `-`, so fields that could be mistaken for those set by hawkgate
    // are removed as well.
    if name.as_bytes().contains(&b'_') {
        let dashed = name.replace('_', "-");
        return if is_hop_by_hop(&dashed) || is_reserved(&dashed) || dashed == "host" {
            HeaderAction::Remove
        } else {
            HeaderAction::Keep
        };
    }
    match name {
        "connection" | "upgrade" if upgrade => HeaderAction::Require,
        "content-length" | "host" => HeaderAction::Require,
        // pingora frames the request itself afterwards.
        "transfer-encoding" => HeaderAction::Remove,
        _ if is_hop_by_hop(name) || is_reserved(name) => HeaderAction::Remove,
        _ => HeaderAction::Keep,
    }
}

/// Returns the action for a field of an upstream's response. `name` is in lower case.
pub(super) fn response_action(name: &str, upgrade: bool) -> HeaderAction {
    match name {
        "connection" | "upgrade" if upgrade => HeaderAction::Require,
        // pingora frames the response by these.
        "content-length" | "transfer-encoding" => HeaderAction::Require,
        // Credentials, and `Alt-Svc`, which could make clients bypass hawkgate.
        "authorization" | "server-authorization" | "alt-svc" => HeaderAction::Remove,
        _ if is_hop_by_hop(name) || name.starts_with("x-hawkgate-") => HeaderAction::Remove,
        _ => HeaderAction::Keep,
    }
}
