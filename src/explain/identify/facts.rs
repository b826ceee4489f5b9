//! The facts of an unverified token that matter to an operator; never its signature.

use serde::Serialize;

use super::Decoded;
use crate::clock::UnixMillis;
use crate::explain::shown::{seconds, shown, time};

/// One fact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fact {
    /// The member of the header or the claims: `iss`.
    pub name: &'static str,
    /// What it is: `issuer`.
    pub label: &'static str,
    /// Its value, escaped and truncated.
    pub value: String,
}

/// The claims that are listed, with what they are. `exp` is listed apart.
const CLAIMS: [(&str, &str); 15] = [
    ("iss", "issuer"),
    ("aud", "audience"),
    ("typ", "type, as a claim"),
    ("token_use", "use"),
    ("ver", "version"),
    ("sub", "subject"),
    ("client_id", "client"),
    ("azp", "client"),
    ("appid", "client"),
    ("cid", "client"),
    ("scope", "scopes"),
    ("scp", "scopes"),
    ("permissions", "permissions"),
    ("nonce", "of a sign-in"),
    ("cnf", "bound to a key"),
];

const HEADER: [(&str, &str); 4] = [
    ("typ", "type"),
    ("alg", "algorithm"),
    ("enc", "encryption"),
    ("kid", "key"),
];

/// The facts of `token`, which has `size` bytes.
pub(super) fn of(token: &Decoded, now: UnixMillis) -> Vec<Fact> {
    let fact = |name, label, value| Fact { name, label, value };
    let from_header = HEADER
        .iter()
        .filter_map(|(name, label)| Some(fact(*name, *label, shown(token.header.get(*name)?))));
    let from_claims = CLAIMS.iter().filter_map(|(name, label)| {
        let value = token.claims.get(*name)?;
        // Of a sign-in's nonce and of a key only that it is there.
        let value = match *name {
            "nonce" | "cnf" => "present".to_owned(),
            _ => shown(value),
        };
        Some(fact(*name, *label, value))
    });
    let mut facts: Vec<_> = from_claims.collect();
    for (name, label) in [("iat", "issued"), ("nbf", "valid from"), ("exp", "expiry")] {
        if let Some(value) = token.claims.get(name) {
            let expired = name == "exp" && seconds(value).is_some_and(|exp| exp <= now.as_secs());
            let mark = if expired { "EXPIRED: " } else { "" };
            facts.push(fact(name, label, format!("{mark}{}", time(value, now))));
        }
    }
    facts.extend(from_header);
    facts.push(fact("size", "size", format!("{} bytes", token.size)));
    facts
}
