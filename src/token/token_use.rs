//! What a token is for. Identity providers sign ID tokens, refresh tokens and logout tokens with the
//! same keys as access tokens, and many give all of them the same `typ`. Only claims tell them apart,
//! and which claims depends on the provider (`docs/design/tokens.md`, "Profiles"). The audience alone
//! is not relied upon: where a provider marks its tokens, the mark is required.

use serde_json::{Map, Value};

use super::TokenError;
use crate::token::settings::{Profile, TokenFormat};

type Members = Map<String, Value>;

/// The member of `events` that makes a token a logout token (OpenID Connect Back-Channel Logout 1.0
/// §2.4).
pub(super) const LOGOUT_EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";

/// What is known of a token when its use is judged.
#[derive(Clone, Copy)]
pub(super) struct Judged<'a> {
    pub(super) claims: &'a Members,
    /// Whether `typ` is that of RFC 9068.
    pub(super) is_at_jwt: bool,
    /// The accepted audience, if the token has one.
    pub(super) audience: Option<&'a str>,
    /// The client that the token was issued to.
    pub(super) client: Option<&'a str>,
}

/// Whether `typ` is one of the accepted ones.
pub(super) fn accepts_type(format: &TokenFormat, header: &Members) -> bool {
    let Some(accepted) = &format.token_types else {
        return true;
    };
    match header.get("typ") {
        None => accepted.iter().any(String::is_empty),
        Some(Value::String(typ)) => accepted.iter().any(|accepted| is_type(typ, accepted)),
        Some(_) => false,
    }
}

/// Whether `typ` is that of RFC 9068 §2.1.
pub(super) fn is_at_jwt(header: &Members) -> bool {
    let typ = header.get("typ").and_then(Value::as_str);
    typ.is_some_and(|typ| is_type(typ, "at+jwt"))
}

/// Media types are compared without regard to case, and may have the prefix `application/` (RFC 7515
/// §4.1.9). `JWT` alone is always sent without it (RFC 7519 §5.1).
fn is_type(typ: &str, accepted: &str) -> bool {
    const PREFIX: &str = "application/";
    if accepted.is_empty() {
        return false;
    }
    let bare = match typ.get(..PREFIX.len()) {
        Some(prefix)
            if prefix.eq_ignore_ascii_case(PREFIX) && !accepted.eq_ignore_ascii_case("JWT") =>
        {
            typ.get(PREFIX.len()..).unwrap_or_default()
        }
        _ => typ,
    };
    bare.eq_ignore_ascii_case(accepted)
}

/// Refuses a token that is not an access token, judging by the rules of `profile`.
pub(super) fn check(
    profile: Profile,
    format: &TokenFormat,
    token: Judged<'_>,
) -> Result<(), TokenError> {
    match profile {
        // What CI services and clusters sign are ID tokens in form; the list of subjects decides.
        // Refresh tokens and logout tokens identify nobody to an API.
        Profile::Workload => refuse_refresh_and_logout_tokens(token.claims),
        // An access token by its registered type.
        Profile::Rfc9068 if token.is_at_jwt => Ok(()),
        Profile::Rfc9068 | Profile::Okta => {
            refuse_other_uses(token.claims)?;
            refuse_hashes_and_nonce(token.claims)?;
            require_scopes_or_client(format, token)
        }
        Profile::Auth0 => {
            refuse_other_uses(token.claims)?;
            check_auth0(token)
        }
        Profile::Entra => {
            refuse_other_uses(token.claims)?;
            refuse_hashes_and_nonce(token.claims)?;
            check_entra(token)
        }
        Profile::Cognito => {
            refuse_other_uses(token.claims)?;
            refuse_hashes_and_nonce(token.claims)?;
            require(
                text(token.claims, "token_use") == "access",
                "its token_use is not \"access\"",
            )
        }
        Profile::Keycloak => {
            refuse_other_uses(token.claims)?;
            // Before version 24, access tokens had the nonce of the sign-in.
            refuse_any(token.claims, &["at_hash", "c_hash", "s_hash"])?;
            require(
                text(token.claims, "typ").eq_ignore_ascii_case("Bearer"),
                "its claim typ is not \"Bearer\"",
            )
        }
    }
}

/// Whether a token is certainly an ID token, regardless of its issuer.
pub(super) fn is_id_token(claims: &Members) -> bool {
    refuse_other_uses(claims) == Err(TokenError::IdToken)
        || ["at_hash", "c_hash"]
            .iter()
            .any(|n| claims.contains_key(*n))
}

/// Auth0's access tokens and ID tokens have the same `typ`. An ID token is recognised by `nonce`,
/// `at_hash` or `c_hash`, or by an audience that is a client rather than an API (Auth0, "Access Token
/// Profiles").
fn check_auth0(token: Judged<'_>) -> Result<(), TokenError> {
    refuse_any(token.claims, &["nonce", "at_hash", "c_hash"])?;
    if token.client.is_some() && token.client == token.audience {
        return Err(TokenError::IdToken);
    }
    Ok(())
}

/// Entra's ID tokens name no client (Microsoft, "ID token claims reference"). An app that calls its
/// own API has an access token whose audience is its client, like an ID token's, but with scopes,
/// roles, or how the client authenticated ("Access token claims reference").
fn check_entra(token: Judged<'_>) -> Result<(), TokenError> {
    const MARKS: [&str; 5] = ["scp", "roles", "azpacr", "appidacr", "apptype"];
    require(token.client.is_some(), "it names no client")?;
    let is_marked = MARKS.iter().any(|name| token.claims.contains_key(*name));
    require(
        token.client != token.audience || is_marked,
        "its audience is its own client, and it has neither scopes nor roles",
    )
}

/// ID tokens have no scopes, and name no client other than their audience (OpenID Connect Core §2).
fn require_scopes_or_client(format: &TokenFormat, token: Judged<'_>) -> Result<(), TokenError> {
    let mut scopes = format.scope_claims.iter();
    let has_scopes = scopes.any(|name| token.claims.contains_key(name));
    let has_client = token.client.is_some() && token.client != token.audience;
    require(
        has_scopes || has_client,
        "it has no scopes, and names no client other than its audience",
    )
}

fn require(holds: bool, otherwise: &'static str) -> Result<(), TokenError> {
    if holds {
        Ok(())
    } else {
        Err(TokenError::NotAccessToken { why: otherwise })
    }
}

/// Refuses tokens with the mark of another use, which no provider gives its access tokens.
fn refuse_other_uses(claims: &Members) -> Result<(), TokenError> {
    let is = |name: &str, word: &str| text(claims, name).eq_ignore_ascii_case(word);
    // Keycloak's claim `typ`, and Cognito's `token_use`.
    if is("typ", "ID") || is("token_use", "id") {
        return Err(TokenError::IdToken);
    }
    refuse_refresh_and_logout_tokens(claims)?;
    // Okta numbers its ID tokens like this (Okta, "ID token payload").
    if text(claims, "jti").starts_with("ID.") && claims.get("ver").is_some_and(Value::is_number) {
        return Err(TokenError::IdToken);
    }
    require(
        !claims.contains_key("token_use") || is("token_use", "access"),
        "its token_use is not \"access\"",
    )
}

fn refuse_refresh_and_logout_tokens(claims: &Members) -> Result<(), TokenError> {
    let is = |name: &str, word: &str| text(claims, name).eq_ignore_ascii_case(word);
    if is("typ", "Refresh") || is("typ", "Offline") || is("token_use", "refresh") {
        return Err(TokenError::RefreshToken);
    }
    let events = claims.get("events");
    if is("typ", "Logout") || events.is_some_and(|events| events.get(LOGOUT_EVENT).is_some()) {
        return Err(TokenError::LogoutToken);
    }
    Ok(())
}

/// Refuses tokens with the claims of ID tokens (OpenID Connect Core §2, §3.3.2.11; Financial-grade
/// API 1.0 part 2 §5.1 for `s_hash`).
fn refuse_hashes_and_nonce(claims: &Members) -> Result<(), TokenError> {
    refuse_any(claims, &["nonce", "at_hash", "c_hash", "s_hash"])
}

fn refuse_any(claims: &Members, names: &[&str]) -> Result<(), TokenError> {
    if names.iter().any(|name| claims.contains_key(*name)) {
        return Err(TokenError::IdToken);
    }
    Ok(())
}

/// A claim's text; empty if there is none.
fn text<'a>(claims: &'a Members, name: &str) -> &'a str {
    claims.get(name).and_then(Value::as_str).unwrap_or_default()
}
