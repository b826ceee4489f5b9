//! The rules that an issuer's tokens must satisfy (`docs/design/tokens.md`, "Verification").

use std::time::Duration;

use serde_json::{Map, Value};

use super::TokenError;
use super::jwk::MAX_KID_BYTES;
use super::subject_pattern::Pattern;
use crate::clock::UnixMillis;
use crate::token::settings::{
    Algorithm, IntrospectionIssuer, OidcIssuer, Profile, SharedSecretIssuer,
};

/// Maximum length of a subject or client identifier, in bytes.
const MAX_NAME_BYTES: usize = 1024;

/// The last second of the year 9999; later times are refused as invalid.
const LATEST: u64 = 253_402_300_799;

/// The rules of one issuer.
#[derive(Debug)]
pub(super) struct Rules {
    /// The exact `iss`.
    pub(super) url: String,
    audiences: Vec<String>,
    pub(super) algorithms: Vec<Algorithm>,
    profile: Profile,
    pub(super) leeway: Duration,
    clients: Option<Vec<String>>,
    subjects: Option<Vec<Pattern>>,
}

/// The parameters of an accepted header that select the key.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ValidatedHeader<'a> {
    pub(super) algorithm: Algorithm,
    pub(super) kid: Option<&'a str>,
}

/// The parsed claims of an accepted token.
#[derive(Debug)]
pub(super) struct ValidatedClaims {
    pub(super) subject: String,
    pub(super) client: Option<String>,
    pub(super) scopes: Vec<String>,
    pub(super) permissions: Vec<String>,
    pub(super) expires_at: UnixMillis,
    /// The later of `nbf` and `iat`, if either is present.
    pub(super) starts_at: Option<UnixMillis>,
}

type Members = Map<String, Value>;

impl Rules {
    pub(super) fn new(config: &OidcIssuer) -> Self {
        Self {
            url: config.url.clone(),
            audiences: config.audiences.clone(),
            algorithms: config.algorithms.clone(),
            profile: config.profile,
            leeway: config.leeway,
            clients: config.clients.clone(),
            subjects: config.subjects.as_deref().map(patterns),
        }
    }

    /// The same rules as for an issuer with public keys.
    pub(super) fn for_shared_secret(config: &SharedSecretIssuer) -> Self {
        Self {
            url: config.url.clone(),
            audiences: config.audiences.clone(),
            algorithms: config.algorithms.clone(),
            profile: config.profile,
            leeway: config.leeway,
            clients: config.clients.clone(),
            subjects: config.subjects.as_deref().map(patterns),
        }
    }

    /// The same rules for claims; an introspected token has no header.
    pub(super) fn for_introspection(config: &IntrospectionIssuer) -> Self {
        Self {
            url: config.url.clone(),
            audiences: config.audiences.clone(),
            algorithms: Vec::new(),
            profile: Profile::Rfc9068,
            leeway: config.leeway,
            clients: config.clients.clone(),
            subjects: config.subjects.as_deref().map(patterns),
        }
    }

    /// Checks `crit`, `alg`, `typ` and the form of `kid`. `jku`, `x5u`, `jwk` and `x5c` are
    /// ignored, whatever they contain: keys come only from the issuer's configuration.
    pub(super) fn validate_header<'a>(
        &self,
        header: &'a Members,
    ) -> Result<ValidatedHeader<'a>, TokenError> {
        let algorithm = algorithm(header, &self.algorithms)?;
        self.token_type(header)?;
        let kid = key_id(header)?;
        Ok(ValidatedHeader { algorithm, kid })
    }

    fn token_type(&self, header: &Members) -> Result<(), TokenError> {
        let accepted: &[&str] = match self.profile {
            Profile::Rfc9068 => &["at+jwt", "application/at+jwt"],
            Profile::Auth0 => &["JWT"],
            Profile::Workload => return Ok(()),
        };
        match header.get("typ") {
            Some(Value::String(typ)) if accepted.iter().any(|a| a.eq_ignore_ascii_case(typ)) => {
                Ok(())
            }
            _ => Err(TokenError::WrongType),
        }
    }

    /// Checks the claims of a token whose signature has been verified.
    pub(super) fn validate_claims(
        &self,
        claims: &Members,
        now: UnixMillis,
    ) -> Result<ValidatedClaims, TokenError> {
        if claims.get("iss").and_then(Value::as_str) != Some(&self.url) {
            return Err(TokenError::UnknownIssuer);
        }
        let expires_at = time(claims, "exp")?.ok_or(TokenError::InvalidClaim { name: "exp" })?;
        self.validate_common(claims, expires_at, now)
    }

    /// Checks an introspection response for an active token (RFC 7662 §2.2), in which `iss` and
    /// `exp` are optional. A token without `exp` is accepted for `max_age`, after which it is
    /// introspected again.
    pub(super) fn validate_introspection(
        &self,
        claims: &Members,
        now: UnixMillis,
        max_age: Duration,
    ) -> Result<ValidatedClaims, TokenError> {
        if claims.get("iss").is_some_and(|iss| iss != &*self.url) {
            return Err(TokenError::UnknownIssuer);
        }
        check_introspected_type(claims)?;
        let expires_at = time(claims, "exp")?.unwrap_or_else(|| now.plus(max_age));
        self.validate_common(claims, expires_at, now)
    }

    fn validate_common(
        &self,
        claims: &Members,
        expires_at: UnixMillis,
        now: UnixMillis,
    ) -> Result<ValidatedClaims, TokenError> {
        let starts_at = self.time(claims, expires_at, now)?;
        let client = client(claims)?;
        let audience = self.audience(claims)?;
        self.refuse_id_token(claims, audience, client)?;
        let subject = identifier(claims, "sub")?.ok_or(TokenError::InvalidClaim { name: "sub" })?;
        self.subject_is_listed(subject)?;
        self.client_is_listed(client)?;
        if claims.contains_key("cnf") {
            return Err(TokenError::Bound);
        }
        Ok(ValidatedClaims {
            subject: subject.to_owned(),
            client: client.map(str::to_owned),
            scopes: scopes(claims)?,
            permissions: permissions(claims)?,
            expires_at,
            starts_at,
        })
    }

    /// The later of `nbf` and `iat`.
    fn time(
        &self,
        claims: &Members,
        exp: UnixMillis,
        now: UnixMillis,
    ) -> Result<Option<UnixMillis>, TokenError> {
        // In 1970 no token has expired, and not every token says when it was issued.
        if !now.is_credible() {
            return Err(TokenError::ClockNotSet);
        }
        let nbf = time(claims, "nbf")?;
        let iat = time(claims, "iat")?;
        if now >= self.accepted_until(exp) {
            return Err(TokenError::Expired);
        }
        if nbf.is_some_and(|nbf| now < self.accepted_from(nbf)) {
            return Err(TokenError::NotYetValid);
        }
        if iat.is_some_and(|iat| now < self.accepted_from(iat)) {
            return Err(TokenError::IssuedInFuture);
        }
        Ok(nbf.max(iat))
    }

    /// The time at and after which a token with this `exp` is refused.
    pub(super) fn accepted_until(&self, expires_at: UnixMillis) -> UnixMillis {
        expires_at.plus(self.leeway)
    }

    /// The time before which a token with this `nbf` or `iat` is refused.
    pub(super) fn accepted_from(&self, starts_at: UnixMillis) -> UnixMillis {
        starts_at.minus(self.leeway)
    }

    /// The first value of `aud` that is a configured audience (RFC 7519 §4.1.3).
    fn audience<'a>(&self, claims: &'a Members) -> Result<&'a str, TokenError> {
        const WRONG: TokenError = TokenError::InvalidClaim { name: "aud" };
        let listed = match claims.get("aud") {
            Some(Value::String(one)) => vec![one.as_str()],
            Some(list @ Value::Array(_)) => strings(list).ok_or(WRONG)?,
            _ => return Err(WRONG),
        };
        listed
            .into_iter()
            .find(|audience| {
                self.audiences
                    .iter()
                    .any(|configured| configured == audience)
            })
            .ok_or(TokenError::WrongAudience)
    }

    /// Auth0's access tokens and ID tokens have the same `typ`. An ID token is recognized by
    /// `nonce`, `at_hash` or `c_hash`, or by an audience that is a client rather than an API.
    fn refuse_id_token(
        &self,
        claims: &Members,
        audience: &str,
        client: Option<&str>,
    ) -> Result<(), TokenError> {
        let looks_like_id_token = ["nonce", "at_hash", "c_hash"]
            .iter()
            .any(|n| claims.contains_key(*n));
        if self.profile == Profile::Auth0 && (looks_like_id_token || client == Some(audience)) {
            return Err(TokenError::IdToken);
        }
        Ok(())
    }

    fn subject_is_listed(&self, subject: &str) -> Result<(), TokenError> {
        let listed = match &self.subjects {
            Some(patterns) => patterns.iter().any(|p| p.matches(subject)),
            // Anyone can obtain a token from a public CI service, so a list is required.
            None => self.profile != Profile::Workload,
        };
        if listed {
            Ok(())
        } else {
            Err(TokenError::SubjectNotAllowed)
        }
    }

    fn client_is_listed(&self, client: Option<&str>) -> Result<(), TokenError> {
        match (&self.clients, client) {
            (None, _) => Ok(()),
            (Some(list), Some(client)) if list.iter().any(|c| c == client) => Ok(()),
            (Some(_), _) => Err(TokenError::ClientNotAllowed),
        }
    }
}

/// Checks `crit` and `alg`.
pub(super) fn algorithm(header: &Members, accepted: &[Algorithm]) -> Result<Algorithm, TokenError> {
    if header.contains_key("crit") {
        return Err(TokenError::CriticalHeader);
    }
    let name = header.get("alg").and_then(Value::as_str);
    let mut accepted = accepted.iter().copied();
    accepted
        .find(|algorithm| Some(algorithm.name()) == name)
        .ok_or(TokenError::UnacceptableAlgorithm)
}

/// Checks the form of `kid`.
pub(super) fn key_id(header: &Members) -> Result<Option<&str>, TokenError> {
    match header.get("kid") {
        None => Ok(None),
        Some(Value::String(kid)) if kid.len() <= MAX_KID_BYTES => Ok(Some(kid)),
        Some(_) => Err(TokenError::Malformed),
    }
}

fn patterns(list: &[String]) -> Vec<Pattern> {
    list.iter().map(|p| Pattern::new(p)).collect()
}

/// Some servers also report refresh tokens and ID tokens as active. They indicate the type in
/// `token_type` (RFC 7662 §2.2) or, in Keycloak's case, in `typ`.
fn check_introspected_type(claims: &Members) -> Result<(), TokenError> {
    let is = |name: &str, words: &[&str]| {
        claims
            .get(name)
            .and_then(Value::as_str)
            .is_some_and(|text| words.iter().any(|word| text.eq_ignore_ascii_case(word)))
    };
    if is("token_type", &["DPoP", "PoP"]) {
        return Err(TokenError::Bound);
    }
    let bearer = [
        "Bearer",
        "access_token",
        "urn:ietf:params:oauth:token-type:access_token",
    ];
    let other = claims.contains_key("token_type") && !is("token_type", &bearer);
    if other || is("typ", &["Refresh", "Offline", "ID"]) {
        return Err(TokenError::WrongType);
    }
    Ok(())
}

/// `client_id` (RFC 9068 §2.2), otherwise `azp` (OpenID Connect Core §2). They must be equal if
/// both are present.
fn client(claims: &Members) -> Result<Option<&str>, TokenError> {
    match (identifier(claims, "client_id")?, identifier(claims, "azp")?) {
        (Some(client_id), Some(azp)) if client_id != azp => Err(TokenError::ClientMismatch),
        (client_id, azp) => Ok(client_id.or(azp)),
    }
}

/// A claim that identifies a party: not empty, not too long, and without control characters.
pub(super) fn identifier<'a>(
    claims: &'a Members,
    claim: &'static str,
) -> Result<Option<&'a str>, TokenError> {
    match claims.get(claim) {
        None => Ok(None),
        Some(Value::String(text))
            if (1..=MAX_NAME_BYTES).contains(&text.len()) && !text.contains(char::is_control) =>
        {
            Ok(Some(text))
        }
        Some(_) => Err(TokenError::InvalidClaim { name: claim }),
    }
}

/// A NumericDate (RFC 7519 §2) in whole seconds.
pub(super) fn time(
    claims: &Members,
    claim: &'static str,
) -> Result<Option<UnixMillis>, TokenError> {
    let Some(value) = claims.get(claim) else {
        return Ok(None);
    };
    value
        .as_u64()
        .filter(|secs| *secs <= LATEST)
        .and_then(|secs| i64::try_from(secs).ok())
        .map(|secs| Some(UnixMillis::from_secs(secs)))
        .ok_or(TokenError::InvalidClaim { name: claim })
}

/// `scope`: a space-separated string (RFC 8693 §4.2), or an array as sent by some issuers.
fn scopes(claims: &Members) -> Result<Vec<String>, TokenError> {
    let listed = match claims.get("scope") {
        None => Some(Vec::new()),
        Some(Value::String(text)) => Some(text.split(' ').filter(|s| !s.is_empty()).collect()),
        Some(value) => strings(value),
    };
    owned(listed, "scope")
}

/// Auth0's `permissions`, an array of strings.
fn permissions(claims: &Members) -> Result<Vec<String>, TokenError> {
    let listed = claims.get("permissions").map_or(Some(Vec::new()), strings);
    owned(listed, "permissions")
}

fn owned(listed: Option<Vec<&str>>, claim: &'static str) -> Result<Vec<String>, TokenError> {
    listed
        .map(|list| list.into_iter().map(str::to_owned).collect())
        .ok_or(TokenError::InvalidClaim { name: claim })
}

/// The elements of an array that contains only strings.
fn strings(value: &Value) -> Option<Vec<&str>> {
    value.as_array()?.iter().map(Value::as_str).collect()
}
