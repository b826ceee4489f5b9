//! What kind of token a JWT is, judging by its content. For advice only: verification has rules of
//! its own (`docs/design/tokens.md`).

use serde::Serialize;
use serde_json::{Map, Value};

use crate::token::Provider;

/// What a token is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// For APIs.
    AccessToken,
    /// Tells a client who signed in (OpenID Connect Core §2).
    IdToken,
    /// For the token endpoint only.
    RefreshToken,
    /// The identity of a job, a pod or a machine, for an audience that it asked for.
    WorkloadToken,
    /// Ends sessions (OpenID Connect Back-Channel Logout §2.4).
    LogoutToken,
    /// Proves possession of a key (RFC 9449 §4).
    DpopProof,
    /// Authenticates a client at a token endpoint (RFC 7523).
    ClientAssertion,
    /// Has no signature (RFC 7519 §6).
    Unsigned,
    /// A JWT with no sign of what it is for.
    Jwt,
    /// A JWE (RFC 7516).
    Encrypted,
    /// Means something to its issuer only.
    Opaque,
    /// Resembles a JWT but cannot be read.
    Malformed,
    /// Something else.
    NotAToken,
}

impl Kind {
    /// The name, without an article.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::AccessToken => "access token",
            Self::IdToken => "ID token",
            Self::RefreshToken => "refresh token",
            Self::WorkloadToken => "workload identity token",
            Self::LogoutToken => "logout token",
            Self::DpopProof => "DPoP proof",
            Self::ClientAssertion => "client assertion",
            Self::Unsigned => "unsigned token",
            Self::Jwt => "token",
            Self::Encrypted => "encrypted token",
            Self::Opaque => "opaque token",
            Self::Malformed => "malformed token",
            Self::NotAToken => "nothing that is a token",
        }
    }

    /// Whether an issuer section can make hawkgate accept a token of this kind.
    pub(super) fn is_for_apis(self) -> bool {
        matches!(self, Self::AccessToken | Self::WorkloadToken | Self::Jwt)
    }
}

type Members = Map<String, Value>;

/// The audience of ID tokens of users at Google: a client.
const GOOGLE_CLIENT: &str = ".apps.googleusercontent.com";

/// The kind of a JWT with this header and these claims.
pub(super) fn of(provider: Option<Provider>, header: &Members, claims: &Members) -> Kind {
    by_header(header)
        .or_else(|| {
            let is_logout = claims
                .get("events")
                .is_some_and(|events| events.to_string().contains("backchannel-logout"));
            is_logout.then_some(Kind::LogoutToken)
        })
        .or_else(|| by_provider(provider?, claims))
        .unwrap_or_else(|| by_claims(claims))
}

fn text<'m>(members: &'m Members, name: &str) -> &'m str {
    members
        .get(name)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

fn has_any(claims: &Members, names: &[&str]) -> bool {
    names.iter().any(|name| claims.contains_key(*name))
}

fn by_header(header: &Members) -> Option<Kind> {
    if text(header, "alg").eq_ignore_ascii_case("none") {
        return Some(Kind::Unsigned);
    }
    let typ = text(header, "typ").to_ascii_lowercase();
    match typ.strip_prefix("application/").unwrap_or(&typ) {
        "at+jwt" => Some(Kind::AccessToken),
        "logout+jwt" => Some(Kind::LogoutToken),
        "dpop+jwt" => Some(Kind::DpopProof),
        "client-authentication+jwt" => Some(Kind::ClientAssertion),
        _ => None,
    }
}

/// The claims by which each provider tells its tokens apart. `docs/identity-providers.md` has the table.
fn by_provider(provider: Provider, claims: &Members) -> Option<Kind> {
    let access_if = |is: bool| Some(if is { Kind::AccessToken } else { Kind::IdToken });
    match provider {
        Provider::Okta => match text(claims, "jti") {
            jti if jti.starts_with("AT.") => Some(Kind::AccessToken),
            jti if jti.starts_with("ID.") => Some(Kind::IdToken),
            _ => access_if(claims.contains_key("cid")),
        },
        Provider::Entra | Provider::AdFs => access_if(has_any(
            claims,
            &["appid", "azp", "scp", "azpacr", "appidacr"],
        )),
        Provider::Cognito => access_if(text(claims, "token_use") != "id"),
        Provider::Keycloak => match text(claims, "typ") {
            "Bearer" => Some(Kind::AccessToken),
            "ID" => Some(Kind::IdToken),
            "Refresh" | "Offline" => Some(Kind::RefreshToken),
            "Logout" => Some(Kind::LogoutToken),
            _ => None,
        },
        Provider::Auth0 => access_if(
            has_any(claims, &["azp", "client_id", "scope", "gty"])
                && !has_any(claims, ID_TOKEN_CLAIMS)
                && claims.get("aud") != claims.get("azp"),
        ),
        Provider::Google => {
            let (client, subject) = (text(claims, "azp"), text(claims, "sub"));
            let of_a_program = !client.is_empty() && client == subject;
            let of_a_user =
                has_any(claims, ID_TOKEN_CLAIMS) || text(claims, "aud").ends_with(GOOGLE_CLIENT);
            Some(if of_a_user && !of_a_program {
                Kind::IdToken
            } else {
                Kind::WorkloadToken
            })
        }
        Provider::GitHubActions | Provider::Kubernetes => Some(Kind::WorkloadToken),
        Provider::GitLab => Some(if claims.contains_key("project_path") {
            Kind::WorkloadToken
        } else {
            Kind::IdToken
        }),
        // Its access tokens and ID tokens have the same claims.
        Provider::Dex => Some(Kind::Jwt),
        // Only its access tokens name scopes.
        Provider::Authentik => access_if(has_any(claims, &["scope", "scp"])),
        _ => None,
    }
}

/// Claims that only ID tokens have (OpenID Connect Core §2, §3.3.2.11), at most providers.
const ID_TOKEN_CLAIMS: &[&str] = &["nonce", "at_hash", "c_hash", "s_hash"];

fn by_claims(claims: &Members) -> Kind {
    if has_any(claims, ID_TOKEN_CLAIMS) {
        return Kind::IdToken;
    }
    if has_any(
        claims,
        &["scope", "scp", "scopes", "client_id", "cid", "permissions"],
    ) {
        return Kind::AccessToken;
    }
    let issuer = text(claims, "iss");
    if !issuer.is_empty() && issuer == text(claims, "sub") {
        return Kind::ClientAssertion;
    }
    // Who signed in, and how, without a client or scopes (OpenID Connect Core §2, §5.1).
    let user = [
        "auth_time",
        "amr",
        "acr",
        "sid",
        "email",
        "email_verified",
        "preferred_username",
        "nickname",
        "given_name",
        "picture",
    ];
    if has_any(claims, &user) {
        Kind::IdToken
    } else {
        Kind::Jwt
    }
}
