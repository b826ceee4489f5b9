//! The header fields that are forwarded, by name.

use std::borrow::Cow;

use crate::gateway::request_headers::StrippedHeaders;
use crate::gateway::reserved_headers::{as_read, is_hop_by_hop, is_reserved, is_structural};

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
pub(super) fn request_action(
    name: &str,
    upgrade: bool,
    stripped: &StrippedHeaders,
) -> HeaderAction {
    // A field that recipients could mistake for one that hawkgate checks, sets or removes.
    if let Cow::Owned(read) = as_read(name) {
        let reserved = is_hop_by_hop(&read)
            || is_reserved(&read)
            || is_structural(&read)
            || stripped.strips(&read)
            || stripped.keeps(&read);
        return if reserved {
            HeaderAction::Remove
        } else {
            HeaderAction::Keep
        };
    }
    match name {
        "connection" | "upgrade" if upgrade => HeaderAction::Require,
        "content-length" | "host" => HeaderAction::Require,
        // The request is framed again.
        "transfer-encoding" => HeaderAction::Remove,
        _ if is_hop_by_hop(name) => HeaderAction::Remove,
        _ if stripped.keeps(name) => HeaderAction::Keep,
        _ if is_reserved(name) || stripped.strips(name) => HeaderAction::Remove,
        _ => HeaderAction::Keep,
    }
}

/// Returns the action for a field of an upstream's response. `name` is in lower case.
pub(super) fn response_action(name: &str, upgrade: bool) -> HeaderAction {
    if let Cow::Owned(read) = as_read(name) {
        let action = response_action(&read, false);
        return if action == HeaderAction::Keep {
            HeaderAction::Keep
        } else {
            HeaderAction::Remove
        };
    }
    match name {
        "connection" | "upgrade" if upgrade => HeaderAction::Require,
        // The response is framed by these.
        "content-length" | "transfer-encoding" => HeaderAction::Require,
        // Credentials, and `Alt-Svc`, which could make clients bypass hawkgate.
        "authorization" | "server-authorization" | "alt-svc" => HeaderAction::Remove,
        _ if is_hop_by_hop(name) || name.starts_with("x-hawkgate-") => HeaderAction::Remove,
        _ => HeaderAction::Keep,
    }
}
