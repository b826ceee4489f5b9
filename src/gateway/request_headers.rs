//! Request headers in which other proxies say who the caller is. Upstreams that were built for such
//! a proxy believe them, so the caller's own are not forwarded (`docs/hardening.md`, "Headers that
//! upstreams trust").

use std::fmt;

use super::reserved_headers::as_read;
use http::HeaderName;

/// The default list, in lower case and sorted; a `*` at the end stands for anything. No entry with
/// a `*` covers another.
pub const IDENTITY_HEADERS: [&str; 74] = [
    // Cloudflare: Access and client certificates.
    "cf-access-authenticated-user-email",
    "cf-access-jwt-assertion",
    "cf-cert-*",
    "cf-client-cert-*",
    // Client certificates (RFC 9440).
    "client-cert*",
    // Impersonation: Elasticsearch, and below Kubernetes, OpenSearch, GitLab, Redmine, Trino.
    "es-security-runas-user",
    "impersonate-*",
    // IBM WebSEAL.
    "iv-*",
    "kubeflow-groups",
    "kubeflow-userid",
    // Oracle Access Manager.
    "oam-*",
    // mod_auth_openidc.
    "oidc-*",
    "opendistro-security-impersonate-as",
    "opensearch-security-impersonate-as",
    // Authelia, and CGI's REMOTE_USER.
    "remote-*",
    // Shibboleth.
    "shib-*",
    // SiteMinder.
    "sm-*",
    "ssl-*",
    "sudo",
    "tailscale-*",
    "teleport-jwt-assertion",
    // WebLogic.
    "wl-proxy-*",
    // Rack::Sendfile reads files that these name.
    "x-accel-*",
    // AWS: Verified Access, load balancers and the Lambda web adapter.
    "x-amzn-ava-*",
    "x-amzn-lambda-context",
    "x-amzn-mtls-*",
    "x-amzn-oidc-*",
    "x-amzn-request-context",
    // Kong; also X-Consumer-* and X-Credential-*.
    "x-anonymous-consumer",
    // Google: API Gateway, App Engine; also Endpoints and Identity-Aware Proxy.
    "x-apigateway-api-userinfo",
    "x-appengine-*",
    // Azure App Service; also X-Ms-Client-Principal* and X-Ms-Token-*.
    "x-arr-*",
    // Gatekeeper, oauth2-proxy and others. X-Auth-Token is a credential of the caller's own.
    "x-auth-email",
    "x-auth-groups",
    "x-auth-id",
    "x-auth-name",
    "x-auth-request-*",
    "x-auth-roles",
    "x-auth-subject",
    "x-auth-user",
    "x-auth-userid",
    "x-auth-username",
    "x-authenticated-*",
    "x-authentik-*",
    "x-azure-*",
    "x-client-cert*",
    "x-client-dn",
    "x-client-verify",
    "x-consumer-*",
    "x-credential-*",
    "x-endpoint-api-userinfo",
    "x-envoy-*",
    "x-forwarded-access-token",
    "x-forwarded-email",
    "x-forwarded-groups",
    "x-forwarded-preferred-username",
    "x-forwarded-user",
    "x-goog-authenticated-user-*",
    "x-goog-iap-*",
    "x-ms-client-principal*",
    "x-ms-token-*",
    "x-pomerium-*",
    "x-presto-user",
    "x-proxy-*",
    "x-redmine-switch-user",
    // Kubernetes' front proxy.
    "x-remote-*",
    "x-sendfile-*",
    "x-ssl-*",
    // Caddy Security.
    "x-token-subject",
    "x-token-user-*",
    "x-trino-user",
    // Apache APISIX.
    "x-userinfo",
    "x-vouch-*",
    "x-webauth-*",
];

/// Whether a header is in the default list. `name` must be in lower case, and as recipients read it
/// ([`as_read`]).
pub fn is_identity(name: &str) -> bool {
    if !Beginnings::LISTED.contain(name) {
        return false;
    }
    let after = IDENTITY_HEADERS.partition_point(|entry| stem(entry) <= name);
    let before = after.checked_sub(1).and_then(|at| IDENTITY_HEADERS.get(at));
    before.is_some_and(|entry| covers(entry, name))
}

/// The first two letters of names, after `x-` if they have it. They tell nearly every common header
/// from those in the list, at a tenth of the cost of a search.
struct Beginnings {
    /// For each first letter, the bits of the second letters.
    plain: [u32; 26],
    /// The same for names that begin with `x-`.
    extension: [u32; 26],
}

impl Beginnings {
    const LISTED: Self = Self::of(&IDENTITY_HEADERS);

    /// Of `names`, which begin with two letters each.
    const fn of(names: &[&str]) -> Self {
        let (mut plain, mut extension) = ([0; 26], [0; 26]);
        let mut at = 0;
        while at < names.len() {
            match names[at].as_bytes() {
                [b'x', b'-', first, second, ..] => {
                    extension[(*first - b'a') as usize] |= 1 << (*second - b'a');
                }
                [first, second, ..] => plain[(*first - b'a') as usize] |= 1 << (*second - b'a'),
                _ => {}
            }
            at += 1;
        }
        Self { plain, extension }
    }

    /// Whether a name in the list begins like `name`.
    fn contain(&self, name: &str) -> bool {
        let (seconds, first, second) = match name.as_bytes() {
            [b'x', b'-', first, second, ..] => (&self.extension, first, second),
            [first, second, ..] => (&self.plain, first, second),
            _ => return false,
        };
        let seconds = seconds.get(usize::from(first.wrapping_sub(b'a')));
        let second = 1_u32.checked_shl(u32::from(second.wrapping_sub(b'a')));
        seconds.is_some_and(|seconds| seconds & second.unwrap_or(0) != 0)
    }
}

/// A pattern without its `*`.
fn stem(pattern: &str) -> &str {
    pattern.strip_suffix('*').unwrap_or(pattern)
}

fn covers(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => name == pattern,
    }
}

/// A header name in lower case, or the beginning of one with a `*` after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderPattern(Box<str>);

/// Why a pattern is not valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderPatternError {
    /// Not a field name (RFC 9110 §5.1), with or without a `*` at the end.
    #[error("is neither a header name nor the beginning of one with a * at the end")]
    Invalid,
    /// Recipients may read a letter, digit or hyphen only in one way.
    #[error("has a character other than letters, digits and hyphens")]
    Character,
}

impl HeaderPattern {
    /// Parses a pattern, in any case.
    ///
    /// # Errors
    /// If it is not valid.
    pub fn parse(written: &str) -> Result<Self, HeaderPatternError> {
        let name = HeaderName::try_from(stem(written)).map_err(|_| HeaderPatternError::Invalid)?;
        if *as_read(name.as_str()) != *name.as_str() {
            return Err(HeaderPatternError::Character);
        }
        Ok(Self(written.to_ascii_lowercase().into()))
    }

    /// Whether the pattern covers `name`, which must be in lower case.
    pub fn covers(&self, name: &str) -> bool {
        covers(&self.0, name)
    }

    /// Whether the pattern and the default list have a name in common.
    pub fn overlaps_identity(&self) -> bool {
        is_identity(stem(&self.0))
            || IDENTITY_HEADERS
                .iter()
                .any(|entry| self.covers(stem(entry)))
    }
}

impl fmt::Display for HeaderPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The headers of callers that a route does not forward, in addition to the reserved ones: the
/// default list, changed by the route's `strip_headers` and `keep_headers`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StrippedHeaders {
    /// Headers that are stripped as well.
    pub also: Vec<HeaderPattern>,
    /// Headers of the default list that are forwarded.
    pub kept: Vec<HeaderPattern>,
}

impl StrippedHeaders {
    /// Whether a header is kept although it is in the default list. `name` must be in lower case.
    pub fn keeps(&self, name: &str) -> bool {
        !self.kept.is_empty() && self.kept.iter().any(|kept| kept.covers(name)) && is_identity(name)
    }

    /// Whether a header is stripped. `name` must be in lower case, and as recipients read it.
    pub fn strips(&self, name: &str) -> bool {
        let listed = is_identity(name) && !self.kept.iter().any(|kept| kept.covers(name));
        listed || self.also.iter().any(|also| also.covers(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_list_is_sorted_and_without_overlap() {
        for pair in IDENTITY_HEADERS.windows(2) {
            let [before, after] = pair else {
                unreachable!()
            };
            assert!(stem(before) < stem(after), "{before} {after}");
            assert!(!covers(before, stem(after)), "{before} {after}");
        }
        for entry in IDENTITY_HEADERS {
            let name = stem(entry);
            assert!(is_identity(name), "{entry}");
            assert!(HeaderPattern::parse(entry).is_ok(), "{entry}");
            // The entry before a name decides, so no other may be in between.
            let inside = IDENTITY_HEADERS.iter().filter(|e| e.starts_with(name));
            assert!(!entry.ends_with('*') || inside.count() == 1, "{entry}");
            let longer = format!("{name}zz");
            assert_eq!(is_identity(&longer), entry.ends_with('*'), "{entry}");
        }
    }

    #[test]
    fn the_beginnings_leave_out_no_listed_name_and_most_others() {
        for entry in IDENTITY_HEADERS {
            let longest = format!("{}zz", stem(entry));
            for name in [stem(entry), &longest] {
                assert!(Beginnings::LISTED.contain(name), "{name}");
            }
        }
        for name in [
            "",
            "x",
            "x-",
            "x-a",
            "accept",
            "cookie",
            "user-agent",
            "x{a",
            "{a",
            "a{",
        ] {
            assert!(!Beginnings::LISTED.contain(name), "{name}");
        }
    }

    #[test]
    fn the_list_is_documented() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/hardening.md");
        let page = std::fs::read_to_string(path).unwrap();
        let (_, list) = page.split_once("from callers:\n\n").unwrap();
        let (list, _) = list.split_once("\n\n").unwrap();
        let names = list
            .split([',', '\n'])
            .map(|name| name.trim().trim_matches('`'));
        let documented: Vec<_> = names.filter(|name| !name.is_empty()).collect();
        assert_eq!(documented, IDENTITY_HEADERS);
    }

    #[test]
    fn identity_headers_of_other_proxies_are_listed_and_others_are_not() {
        for name in [
            "remote-user",
            "x-remote-user",
            "x-remote-extra-scopes",
            "x-goog-iap-jwt-assertion",
            "x-amzn-oidc-data",
            "x-ms-client-principal",
            "x-ms-client-principal-name",
            "ssl-client-s-dn",
            "impersonate-extra-x",
            "x-auth-user",
            "x-auth-userid",
            "x-auth-username",
        ] {
            assert!(is_identity(name), "{name}");
        }
        for name in [
            "",
            "a",
            "accept",
            "cookie",
            "cf-access-client-id",
            "remote",
            "x-auth-token",
            "x-auth-userx",
            "x-custom",
            "x-request-id",
            "x-taskcluster-trace-id",
            "zz",
        ] {
            assert!(!is_identity(name), "{name}");
        }
    }

    #[test]
    fn a_route_may_strip_more_headers_and_keep_some() {
        let patterns = |written: &[&str]| {
            let parsed = written.iter().map(|p| HeaderPattern::parse(p).unwrap());
            parsed.collect::<Vec<_>>()
        };
        let headers = StrippedHeaders {
            also: patterns(&["X-Tenant", "x-corp-*"]),
            kept: patterns(&["X-Forwarded-User", "x-webauth-*"]),
        };
        for (name, stripped) in [
            ("x-tenant", true),
            ("x-tenant-id", false),
            ("x-corp-", true),
            ("x-corp-user", true),
            ("x-forwarded-user", false),
            ("x-forwarded-email", true),
            ("x-webauth-user", false),
        ] {
            assert_eq!(headers.strips(name), stripped, "{name}");
        }
        assert!(headers.keeps("x-webauth-user") && !headers.keeps("x-forwarded-email"));
        for (pattern, error) in [
            ("", HeaderPatternError::Invalid),
            ("*", HeaderPatternError::Invalid),
            ("a*b", HeaderPatternError::Character),
            ("a b", HeaderPatternError::Invalid),
            ("x_user", HeaderPatternError::Character),
        ] {
            assert_eq!(HeaderPattern::parse(pattern), Err(error), "{pattern}");
        }
        for (pattern, overlaps) in [
            ("x-*", true),
            ("x-webauth-user", true),
            ("remote-user", true),
            ("accept", false),
        ] {
            let pattern = HeaderPattern::parse(pattern).unwrap();
            assert_eq!(pattern.overlaps_identity(), overlaps, "{pattern}");
        }
    }
}
