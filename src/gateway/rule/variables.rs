//! The names that an expression may use.

/// The variables.
pub(super) const ROOTS: [&str; 4] = ["claims", "token", "request", "client"];

/// Each with the name by which it is looked up; documented in `docs/rules.md`.
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

/// Names in front of several of [`FIELDS`] that are no values themselves, beside the roots.
pub(super) const GROUPS: [&str; 1] = ["client.certificate"];
