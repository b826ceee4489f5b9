//! What is known of a caller and of a request's head.

use http::header::USER_AGENT;

use super::{Facts, RequestFacts};
use crate::header_fields::{HeaderFields, only, text};
use crate::token::Caller;

/// Nothing is known of the claims of opaque tokens, nor of anonymous callers; and a name sent
/// with a password is only a claim until the exchange has proved it, which comes after.
pub(super) fn of<'a>(caller: &'a Caller, request: RequestFacts<'a>) -> Facts<'a> {
    let nobody = Facts {
        claims: None,
        issuer: "",
        subject: "",
        client: "",
        scopes: &[],
        request,
    };
    match caller {
        Caller::Verified(token) => Facts {
            claims: Some(token.claims()),
            issuer: token.issuer(),
            subject: token.subject(),
            client: token.client().unwrap_or_default(),
            scopes: token.scopes(),
            request,
        },
        Caller::Delegated { issuer, .. } => Facts { issuer, ..nobody },
        Caller::Password { .. } | Caller::Anonymous => nobody,
    }
}

/// The one `User-Agent` in visible ASCII, or nothing.
pub(in crate::gateway) fn user_agent(headers: &dyn HeaderFields) -> &str {
    let found = only(headers, &USER_AGENT).ok().flatten();
    found.and_then(text).unwrap_or_default()
}
