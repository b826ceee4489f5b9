//! Logout tokens, with which an issuer ends sessions (OpenID Connect Back-Channel Logout 1.0 §2.4,
//! §2.6).

use std::time::Duration;

use serde_json::{Map, Value};

use super::TokenError;
use super::id_token::IdTokenVerifier;
use super::jws::Jws;
use super::keys::Keys;
use super::rules::{ValidatedHeader, algorithm, expiry, identifier, key_id, start};
use super::token_use::{LOGOUT_EVENT, is_at_jwt};
use crate::clock::{SharedClock, UnixMillis};
use crate::token::settings::Algorithm;

/// Maximum length of a logout token, in bytes.
pub const MAX_LOGOUT_TOKEN_BYTES: usize = 8 * 1024;

/// How old `iat` may be, plus the leeway. Issuers send the token at once, and the specification
/// recommends that it expire within two minutes (§4).
const MAX_AGE: Duration = Duration::from_mins(5);

/// The values of `typ` that a logout token may have: the one registered for it, and those that only
/// say that it is a JWT (RFC 7519 §5.1). Others are tokens for another purpose (RFC 8725 §3.11).
const TYPES: [&str; 3] = ["logout+jwt", "application/logout+jwt", "JWT"];

/// Verifies an issuer's logout tokens for one client.
#[derive(Debug)]
pub struct LogoutTokenVerifier {
    issuer: String,
    client_id: String,
    algorithms: Vec<Algorithm>,
    leeway: Duration,
    keys: Keys,
    clock: SharedClock,
}

/// What a verified logout token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogoutTokenClaims {
    /// `jti`. The caller must not accept it twice.
    pub id: String,
    /// `iat`.
    pub issued_at: UnixMillis,
    /// When the token is no longer accepted, so that its `jti` need not be remembered any longer.
    pub accepted_until: UnixMillis,
    /// `sub`.
    pub subject: Option<String>,
    /// `sid`. At least one of the two is present.
    pub session: Option<String>,
}

/// Why a logout token was refused. Contains no part of the token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogoutTokenError {
    /// It violates a rule that applies to every token.
    #[error("{0}")]
    Token(#[from] TokenError),
    /// It is larger than [`MAX_LOGOUT_TOKEN_BYTES`].
    #[error("the logout token is larger than 8 KiB")]
    TooLarge,
    /// `typ` is that of tokens for another purpose.
    #[error("the token's typ is not that of logout tokens")]
    Type,
    /// `iat` is too long ago.
    #[error("the logout token was issued more than 5 minutes ago")]
    TooOld,
    /// `events` does not have the member of logout tokens, as an object.
    #[error("the token's events do not include a logout")]
    Event,
    /// It has a `nonce`, so it is an ID token.
    #[error("the logout token has a nonce")]
    Nonce,
    /// It has neither `sub` nor `sid`.
    #[error("the logout token names neither a user nor a session")]
    NoSession,
}

impl LogoutTokenVerifier {
    /// A verifier of logout tokens from the issuer and for the client of `id_tokens`, with the same
    /// keys and algorithms (§2.6).
    pub fn new(id_tokens: &IdTokenVerifier) -> Self {
        Self {
            issuer: id_tokens.rules.url.clone(),
            client_id: id_tokens.client_id.clone(),
            algorithms: id_tokens.rules.algorithms.clone(),
            leeway: id_tokens.rules.leeway,
            keys: id_tokens.keys.clone(),
            clock: id_tokens.clock.clone(),
        }
    }

    /// Verifies `token`, except that its `jti` is new.
    ///
    /// # Errors
    /// With the first rule that the token violates.
    pub async fn verify(&self, token: &str) -> Result<LogoutTokenClaims, LogoutTokenError> {
        if token.len() > MAX_LOGOUT_TOKEN_BYTES {
            return Err(LogoutTokenError::TooLarge);
        }
        let jws = Jws::parse(token)?;
        let header = ValidatedHeader {
            algorithm: algorithm(&jws.header, &self.algorithms)?,
            kid: key_id(&jws.header)?,
            is_at_jwt: is_at_jwt(&jws.header),
        };
        check_type(&jws.header)?;
        // Before the signature, so that tokens of others cause no fetch of keys.
        self.check_parties(&jws.claims)?;
        self.keys.verify(&header, &jws).await?;
        self.validate_claims(&jws.claims)
    }

    fn check_parties(&self, claims: &Map<String, Value>) -> Result<(), TokenError> {
        if claims.get("iss").and_then(Value::as_str) != Some(&self.issuer) {
            return Err(TokenError::UnknownIssuer);
        }
        let is_ours = |audience: &Value| audience.as_str() == Some(&self.client_id);
        match claims.get("aud") {
            Some(Value::Array(list)) if !list.iter().all(Value::is_string) => {
                Err(TokenError::claim("aud"))
            }
            Some(Value::Array(list)) if list.iter().any(is_ours) => Ok(()),
            Some(one @ Value::String(_)) if is_ours(one) => Ok(()),
            Some(Value::Array(_) | Value::String(_)) => Err(TokenError::WrongAudience),
            _ => Err(TokenError::claim("aud")),
        }
    }

    fn validate_claims(
        &self,
        claims: &Map<String, Value>,
    ) -> Result<LogoutTokenClaims, LogoutTokenError> {
        let (issued_at, accepted_until) = self.validate_times(claims)?;
        check_event(claims)?;
        if claims.contains_key("nonce") {
            return Err(LogoutTokenError::Nonce);
        }
        let id = identifier(claims, "jti")?.ok_or_else(|| TokenError::claim("jti"))?;
        let subject = identifier(claims, "sub")?.map(str::to_owned);
        let session = identifier(claims, "sid")?.map(str::to_owned);
        if subject.is_none() && session.is_none() {
            return Err(LogoutTokenError::NoSession);
        }
        Ok(LogoutTokenClaims {
            id: id.to_owned(),
            issued_at,
            accepted_until,
            subject,
            session,
        })
    }

    /// `iat`, and the end of acceptance. `exp` has been required since the final specification;
    /// tokens of earlier drafts have none.
    fn validate_times(
        &self,
        claims: &Map<String, Value>,
    ) -> Result<(UnixMillis, UnixMillis), LogoutTokenError> {
        let now = self.clock.now();
        if !now.is_credible() {
            return Err(TokenError::ClockNotSet.into());
        }
        let issued_at = start(claims, "iat")?.ok_or_else(|| TokenError::claim("iat"))?;
        let expires_at = expiry(claims)?.map(|exp| exp.plus(self.leeway));
        let too_old_at = issued_at.plus(MAX_AGE).plus(self.leeway);
        if now < issued_at.minus(self.leeway) {
            return Err(TokenError::IssuedInFuture.into());
        }
        if start(claims, "nbf")?.is_some_and(|nbf| now < nbf.minus(self.leeway)) {
            return Err(TokenError::NotYetValid.into());
        }
        if expires_at.is_some_and(|exp| now >= exp) {
            return Err(TokenError::Expired.into());
        }
        if now >= too_old_at {
            return Err(LogoutTokenError::TooOld);
        }
        let accepted_until = expires_at.map_or(too_old_at, |exp| exp.min(too_old_at));
        Ok((issued_at, accepted_until))
    }
}

fn check_type(header: &Map<String, Value>) -> Result<(), LogoutTokenError> {
    let known = |typ: &str| TYPES.iter().any(|known| known.eq_ignore_ascii_case(typ));
    match header.get("typ") {
        None => Ok(()),
        Some(Value::String(typ)) if known(typ) => Ok(()),
        Some(_) => Err(LogoutTokenError::Type),
    }
}

fn check_event(claims: &Map<String, Value>) -> Result<(), LogoutTokenError> {
    let event = claims
        .get("events")
        .and_then(|events| events.get(LOGOUT_EVENT));
    if event.is_some_and(Value::is_object) {
        Ok(())
    } else {
        Err(LogoutTokenError::Event)
    }
}

#[cfg(test)]
mod tests;
