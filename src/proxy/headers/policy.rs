//! Which header fields are forwarded.

use crate::gateway::reserved_headers::{is_hop_by_hop as hop_by_hop, is_reserved as owned};

/// What happens to a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeaderAction {
    /// Removed.
    Remove,
    /// Forwarded, unless `Connection` lists it.
    Keep,
    /// Forwarded even then, because framing depends on it.
    Require,
}

/// For a field of a request. `name` is in lower case, as in the `http` crate.
pub(super) fn request_action(name: &str, upgrade: bool) -> HeaderAction {
    // Some servers treat `_` as `-`, so fields that could be mistaken for hawkgate's are
    // removed as well.
    if name.as_bytes().contains(&b'_') {
        let dashed = name.replace('_', "-");
        return if hop_by_hop(&dashed) || owned(&dashed) || dashed == "host" {
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
        _ if hop_by_hop(name) || owned(name) => HeaderAction::Remove,
        _ => HeaderAction::Keep,
    }
}

/// For a field of an upstream's response.
pub(super) fn response_action(name: &str, upgrade: bool) -> HeaderAction {
    match name {
        "connection" | "upgrade" if upgrade => HeaderAction::Require,
        // pingora reads the framing of the response from these.
        "content-length" | "transfer-encoding" => HeaderAction::Require,
        // Credentials, and invitations to bypass hawkgate.
        "authorization" | "server-authorization" | "alt-svc" => HeaderAction::Remove,
        _ if hop_by_hop(name) || name.starts_with("x-hawkgate-") => HeaderAction::Remove,
        _ => HeaderAction::Keep,
    }
}
