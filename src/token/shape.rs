//! Which identity provider's tokens a token resembles, for advice to operators. Nothing here takes
//! part in verification: the content of a token that has not been verified proves nothing.

use std::fmt;

use serde_json::{Map, Value};
use url::Url;

/// An identity provider whose tokens can be recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Provider {
    Auth0,
    Okta,
    Entra,
    AdFs,
    Cognito,
    Keycloak,
    Google,
    GitHubActions,
    GitLab,
    Kubernetes,
    Dex,
    Zitadel,
    Authentik,
    /// Any provider whose access tokens have the `typ` of RFC 9068.
    Rfc9068,
}

impl Provider {
    /// The name that its users know.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auth0 => "Auth0",
            Self::Okta => "Okta",
            Self::Entra => "Microsoft Entra",
            Self::AdFs => "AD FS",
            Self::Cognito => "Amazon Cognito",
            Self::Keycloak => "Keycloak",
            Self::Google => "Google",
            Self::GitHubActions => "GitHub Actions",
            Self::GitLab => "GitLab",
            Self::Kubernetes => "Kubernetes",
            Self::Dex => "Dex",
            Self::Zitadel => "Zitadel",
            Self::Authentik => "Authentik",
            Self::Rfc9068 => "an identity provider that follows RFC 9068",
        }
    }

    /// One of its tokens, with an article: "an Okta token".
    pub const fn token(self) -> &'static str {
        match self {
            Self::Auth0 => "an Auth0 token",
            Self::Okta => "an Okta token",
            Self::Entra => "a Microsoft Entra token",
            Self::AdFs => "an AD FS token",
            Self::Cognito => "an Amazon Cognito token",
            Self::Keycloak => "a Keycloak token",
            Self::Google => "a Google token",
            Self::GitHubActions => "a GitHub Actions token",
            Self::GitLab => "a GitLab token",
            Self::Kubernetes => "a Kubernetes token",
            Self::Dex => "a Dex token",
            Self::Zitadel => "a Zitadel token",
            Self::Authentik => "an Authentik token",
            Self::Rfc9068 => "an RFC 9068 access token",
        }
    }

    /// The `profile` that accepts its access tokens, or in the case of workload identities its
    /// tokens; `None` if no profile does.
    pub const fn profile(self) -> Option<&'static str> {
        match self {
            Self::Auth0 => Some("auth0"),
            Self::Okta | Self::Zitadel => Some("okta"),
            Self::Entra | Self::AdFs => Some("entra"),
            Self::Cognito => Some("cognito"),
            Self::Keycloak => Some("keycloak"),
            Self::Google | Self::GitHubActions | Self::GitLab | Self::Kubernetes | Self::Dex => {
                Some("workload")
            }
            Self::Authentik => None,
            Self::Rfc9068 => Some("rfc9068"),
        }
    }
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

type Members = Map<String, Value>;

/// The provider whose tokens have this header and these claims, judging by `iss` and by claims that
/// no other provider uses; `None` if there is no sign of any.
pub fn recognise(header: &Members, claims: &Members) -> Option<Provider> {
    by_issuer(claims)
        .or_else(|| by_claims(claims))
        .or_else(|| is_rfc9068(header).then_some(Provider::Rfc9068))
}

/// Hosts and paths that belong to one provider.
fn by_issuer(claims: &Members) -> Option<Provider> {
    let text = claims.get("iss")?.as_str()?;
    // Identity-Aware Proxy, and the second name that Google has for itself.
    if text == "https://cloud.google.com/iap" || text == "accounts.google.com" {
        return Some(Provider::Google);
    }
    if text == "kubernetes/serviceaccount" {
        return Some(Provider::Kubernetes);
    }
    let url = Url::parse(text).ok()?;
    let (host, path) = (url.host_str()?, url.path());
    let is_under = |domain: &str| {
        host.strip_suffix(domain)
            .is_some_and(|rest| rest.ends_with('.'))
    };
    let hosts_of = |provider, domains: &[&str]| {
        let matches = domains
            .iter()
            .any(|domain| host == *domain || is_under(domain));
        matches.then_some(provider)
    };
    let cognito = host.starts_with("cognito-idp.")
        && (is_under("amazonaws.com") || is_under("amazonaws.com.cn"));
    if cognito {
        return Some(Provider::Cognito);
    }
    hosts_of(Provider::Auth0, &["auth0.com"])
        .or_else(|| {
            hosts_of(
                Provider::Okta,
                &["okta.com", "oktapreview.com", "okta-emea.com"],
            )
        })
        .or_else(|| {
            let hosts = [
                "sts.windows.net",
                "login.microsoftonline.com",
                "login.microsoftonline.us",
                "login.partner.microsoftonline.cn",
                "sts.chinacloudapi.cn",
                "b2clogin.com",
                "ciamlogin.com",
            ];
            hosts_of(Provider::Entra, &hosts)
        })
        .or_else(|| hosts_of(Provider::Google, &["accounts.google.com"]))
        .or_else(|| {
            hosts_of(
                Provider::GitHubActions,
                &["token.actions.githubusercontent.com"],
            )
        })
        .or_else(|| hosts_of(Provider::GitLab, &["gitlab.com"]))
        .or_else(|| hosts_of(Provider::Zitadel, &["zitadel.cloud"]))
        .or_else(|| by_path(path))
}

/// Paths of issuers that run on hosts of their users' own.
fn by_path(path: &str) -> Option<Provider> {
    let path = path.trim_end_matches('/');
    if path == "/adfs/services/trust" || path == "/adfs" {
        Some(Provider::AdFs)
    } else if path.contains("/application/o/") {
        Some(Provider::Authentik)
    } else if path == "/_services/token" {
        // GitHub Enterprise Server.
        Some(Provider::GitHubActions)
    } else if path.rsplit('/').nth(1) == Some("realms") {
        Some(Provider::Keycloak)
    } else if path == "/oauth2" || path.starts_with("/oauth2/aus") || path == "/oauth2/default" {
        Some(Provider::Okta)
    } else if path.ends_with("/dex") {
        Some(Provider::Dex)
    } else {
        None
    }
}

/// Claims that only one provider uses, whatever the issuer is called.
fn by_claims(claims: &Members) -> Option<Provider> {
    let has = |names: &[&str]| names.iter().all(|name| claims.contains_key(*name));
    let text = |name: &str| claims.get(name).and_then(Value::as_str).unwrap_or_default();
    let prefixed = |prefix: &str| claims.keys().any(|name| name.starts_with(prefix));
    let subject = text("sub");
    if has(&["kubernetes.io"]) || subject.starts_with("system:serviceaccount:") {
        Some(Provider::Kubernetes)
    } else if has(&["project_path", "pipeline_id"]) {
        Some(Provider::GitLab)
    } else if has(&["repository_owner", "run_id", "workflow"]) {
        Some(Provider::GitHubActions)
    } else if prefixed("urn:zitadel:") {
        Some(Provider::Zitadel)
    } else if has(&["token_use"]) && has(&["origin_jti"]) || prefixed("cognito:") {
        Some(Provider::Cognito)
    } else if has(&["apptype"]) {
        Some(Provider::AdFs)
    } else if has(&["tid", "ver"]) {
        Some(Provider::Entra)
    } else if has(&["cid"]) && claims.get("scp").is_some_and(Value::is_array)
        || is_oktas_id(text("jti"))
    {
        Some(Provider::Okta)
    } else if has(&["typ", "azp"]) && (has(&["realm_access"]) || has(&["allowed-origins"]))
        || matches!(text("typ"), "Bearer" | "ID" | "Refresh" | "Offline")
    {
        Some(Provider::Keycloak)
    } else if has(&["federated_claims"]) {
        Some(Provider::Dex)
    } else if has(&["gty"]) {
        Some(Provider::Auth0)
    } else {
        None
    }
}

/// Okta's identifiers of access and ID tokens.
fn is_oktas_id(jti: &str) -> bool {
    jti.starts_with("AT.") || jti.starts_with("ID.")
}

fn is_rfc9068(header: &Members) -> bool {
    let typ = header.get("typ").and_then(Value::as_str);
    typ.is_some_and(|typ| {
        ["at+jwt", "application/at+jwt"]
            .iter()
            .any(|known| known.eq_ignore_ascii_case(typ))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn recognised(header: &Value, claims: &Value) -> Option<Provider> {
        recognise(header.as_object().unwrap(), claims.as_object().unwrap())
    }

    #[test]
    fn providers_are_recognised_by_their_issuers() {
        for (iss, provider) in [
            ("https://tenant.eu.auth0.com/", Provider::Auth0),
            ("https://dev-1.okta.com", Provider::Okta),
            ("https://login.example.com/oauth2/aus1a2b3c", Provider::Okta),
            ("https://id.example.com/oauth2/default", Provider::Okta),
            (
                "https://login.microsoftonline.com/3d1f/v2.0",
                Provider::Entra,
            ),
            ("https://sts.windows.net/3d1f/", Provider::Entra),
            ("https://t.b2clogin.com/3d1f/v2.0/", Provider::Entra),
            ("http://fs.example.com/adfs/services/trust", Provider::AdFs),
            ("https://fs.example.com/adfs", Provider::AdFs),
            (
                "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_a",
                Provider::Cognito,
            ),
            ("https://kc.example.com/realms/dev", Provider::Keycloak),
            ("https://kc.example.com/auth/realms/dev", Provider::Keycloak),
            ("https://accounts.google.com", Provider::Google),
            ("accounts.google.com", Provider::Google),
            ("https://cloud.google.com/iap", Provider::Google),
            (
                "https://token.actions.githubusercontent.com",
                Provider::GitHubActions,
            ),
            (
                "https://github.example.com/_services/token",
                Provider::GitHubActions,
            ),
            ("https://gitlab.com", Provider::GitLab),
            ("https://dex.example.com/dex", Provider::Dex),
            ("https://org-x.zitadel.cloud", Provider::Zitadel),
            (
                "https://auth.example.com/application/o/app/",
                Provider::Authentik,
            ),
        ] {
            let found = recognised(&json!({}), &json!({ "iss": iss }));
            assert_eq!(found, Some(provider), "{iss}");
        }
        for iss in [
            "https://okta.com.example",
            "https://notokta.com",
            "auth0",
            "",
        ] {
            assert_eq!(
                recognised(&json!({}), &json!({ "iss": iss })),
                None,
                "{iss}"
            );
        }
    }

    #[test]
    fn providers_with_names_of_their_users_own_are_recognised_by_their_claims() {
        for (claims, provider) in [
            (json!({ "kubernetes.io": {} }), Provider::Kubernetes),
            (
                json!({ "sub": "system:serviceaccount:ci:builder" }),
                Provider::Kubernetes,
            ),
            (
                json!({ "project_path": "a/b", "pipeline_id": "1" }),
                Provider::GitLab,
            ),
            (
                json!({ "urn:zitadel:iam:org:project:roles": {} }),
                Provider::Zitadel,
            ),
            (
                json!({ "token_use": "access", "origin_jti": "x" }),
                Provider::Cognito,
            ),
            (json!({ "apptype": "Public", "appid": "x" }), Provider::AdFs),
            (json!({ "tid": "x", "ver": "2.0" }), Provider::Entra),
            (json!({ "cid": "x", "scp": ["a"] }), Provider::Okta),
            (json!({ "jti": "ID.abc" }), Provider::Okta),
            (json!({ "typ": "Bearer", "azp": "app" }), Provider::Keycloak),
        ] {
            let mut claims = claims;
            claims["iss"] = json!("https://login.example.com/");
            assert_eq!(recognised(&json!({}), &claims), Some(provider), "{claims}");
        }
    }

    #[test]
    fn the_registered_type_is_recognised_last() {
        let header = json!({ "typ": "AT+JWT" });
        let plain = json!({ "iss": "https://a.example/" });
        assert_eq!(recognised(&header, &plain), Some(Provider::Rfc9068));
        assert_eq!(recognised(&json!({ "typ": "JWT" }), &plain), None);
        let auth0 = json!({ "iss": "https://t.auth0.com/" });
        assert_eq!(recognised(&header, &auth0), Some(Provider::Auth0));
    }
}
