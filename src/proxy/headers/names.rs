//! Which headers do not pass.

use crate::gateway::reserved_headers::{is_hop_by_hop as hop_by_hop, is_reserved as owned};

/// What becomes of a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeaderAction {
    /// Taken out.
    Remove,
    /// Passes, unless nominated by `Connection`.
    Keep,
    /// Passes even then: framing depends on it.
    Require,
}

/// For a caller's header. Names are lower case, as `http` keeps them.
pub(super) fn in_request(name: &str, upgrade: bool) -> HeaderAction {
    // Some servers take `_` for `-`; what they would confuse with ours goes as well.
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
        // pingora frames the request anew after this.
        "transfer-encoding" => HeaderAction::Remove,
        _ if hop_by_hop(name) || owned(name) => HeaderAction::Remove,
        _ => HeaderAction::Keep,
    }
}

/// For a header of an upstream's answer.
pub(super) fn in_response(name: &str, upgrade: bool) -> HeaderAction {
    match name {
        "connection" | "upgrade" if upgrade => HeaderAction::Require,
        // pingora reads the framing off these when it writes the answer.
        "content-length" | "transfer-encoding" => HeaderAction::Require,
        // Credentials, and invitations to go round hawkgate.
        "authorization" | "server-authorization" | "alt-svc" => HeaderAction::Remove,
        _ if hop_by_hop(name) || name.starts_with("x-hawkgate-") => HeaderAction::Remove,
        _ => HeaderAction::Keep,
    }
}
