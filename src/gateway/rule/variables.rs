//! The names that expressions can refer to.

/// The top-level variables.
pub(super) const ROOTS: [&str; 4] = ["claims", "token", "request", "client"];

/// The attributes by full name; documented in `docs/rules.md`.
pub(super) const FIELDS: [&str; 14] = [
    "token.issuer",
    "token.subject",
    "token.client",
    "token.scopes",
    "request.method",
    "request.host",
    "request.path",
    "request.user_agent",
    "client.address",
    "client.certificate.common_name",
    "client.certificate.dns_names",
    "client.certificate.uris",
    "client.certificate.emails",
    "client.certificate.fingerprint",
];

/// Prefixes of [`FIELDS`], other than roots, that are not values themselves.
pub(super) const GROUPS: [&str; 1] = ["client.certificate"];
