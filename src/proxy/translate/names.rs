//! Which headers do not pass.

use crate::gateway::fields::{is_hop_by_hop as hop_by_hop, is_owned as owned};

/// What becomes of a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// Taken out.
    Goes,
    /// Passes, unless nominated by `Connection`.
    Stays,
    /// Passes even then: framing depends on it.
    Needed,
}

/// For a caller's header. Names are lower case, as `http` keeps them.
pub(super) fn in_request(name: &str, upgrade: bool) -> Fate {
    // Some servers take `_` for `-`; what they would confuse with ours goes as well.
    if name.as_bytes().contains(&b'_') {
        let dashed = name.replace('_', "-");
        return if hop_by_hop(&dashed) || owned(&dashed) || dashed == "host" {
            Fate::Goes
        } else {
            Fate::Stays
        };
    }
    match name {
        "connection" | "upgrade" if upgrade => Fate::Needed,
        "content-length" | "host" => Fate::Needed,
        // pingora frames the request anew after this.
        "transfer-encoding" => Fate::Goes,
        _ if hop_by_hop(name) || owned(name) => Fate::Goes,
        _ => Fate::Stays,
    }
}

/// For a header of an upstream's answer.
pub(super) fn in_response(name: &str, upgrade: bool) -> Fate {
    match name {
        "connection" | "upgrade" if upgrade => Fate::Needed,
        // pingora reads the framing off these when it writes the answer.
        "content-length" | "transfer-encoding" => Fate::Needed,
        // Credentials, and invitations to go round hawkgate.
        "authorization" | "server-authorization" | "alt-svc" => Fate::Goes,
        _ if hop_by_hop(name) || name.starts_with("x-hawkgate-") => Fate::Goes,
        _ => Fate::Stays,
    }
}
