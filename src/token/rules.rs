//! The rules that an issuer's tokens must satisfy (`docs/design/tokens.md`, "Verification").

use std::time::Duration;

use serde_json::{Map, Value};

use super::TokenError;
use super::error::{Advice, ClaimRole};
use super::jwk::MAX_KID_BYTES;
use super::numeric_date::{Rounding, numeric_date};
use super::shape::{Provider, recognise};
use super::subject_pattern::Pattern;
use super::token_use::{self, Judged};
use crate::clock::UnixMillis;
use crate::token::settings::{
    Algorithm, IntrospectionIssuer, OidcIssuer, Profile, SharedSecretIssuer, TokenFormat,
};

/// Maximum length of a subject or client identifier, in bytes.
const MAX_NAME_BYTES: usize = 1024;

/// The rules of one issuer.
#[derive(Debug)]
pub(super) struct Rules {
    /// The exact `iss`.
    pub(super) url: String,
    audiences: Vec<String>,
    pub(super) algorithms: Vec<Algorithm>,
    profile: Profile,
    format: TokenFormat,
    pub(super) leeway: Duration,
    clients: Option<Vec<String>>,
    subjects: Option<Vec<Pattern>>,
}

/// The parameters of an accepted header that select the key.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ValidatedHeader<'a> {
    pub(super) algorithm: Algorithm,
    pub(super) kid: Option<&'a str>,
    /// Whether `typ` is that of RFC 9068.
    pub(super) is_at_jwt: bool,
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
            format: config.format.clone(),
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
            format: config.format.clone(),
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
            format: config.format.clone(),
            leeway: config.leeway,
            clients: config.clients.clone(),
            subjects: config.subjects.as_deref().map(patterns),
        }
    }

    /// The claims that name the client.
    pub(super) fn client_claims(&self) -> &[String] {
        &self.format.client_claims
    }

    /// Checks `crit`, `alg`, `typ` and the form of `kid`. `jku`, `x5u`, `jwk` and `x5c` are
    /// ignored, whatever they contain: keys come only from the issuer's configuration.
    pub(super) fn validate_header<'a>(
        &self,
        header: &'a Members,
    ) -> Result<ValidatedHeader<'a>, TokenError> {
        let algorithm = algorithm(header, &self.algorithms)?;
        if !token_use::accepts_type(&self.format, header) {
            return Err(TokenError::WrongType);
        }
        let kid = key_id(header)?;
        let is_at_jwt = token_use::is_at_jwt(header);
        Ok(ValidatedHeader {
            algorithm,
            kid,
            is_at_jwt,
        })
    }

    /// Checks the claims of a token whose signature has been verified. `is_at_jwt` is as in
    /// [`ValidatedHeader`].
    pub(super) fn validate_claims(
        &self,
        claims: &Members,
        is_at_jwt: bool,
        now: UnixMillis,
    ) -> Result<ValidatedClaims, TokenError> {
        if claims.get("iss").and_then(Value::as_str) != Some(&self.url) {
            return Err(TokenError::UnknownIssuer);
        }
        let expires_at = expiry(claims)?.ok_or_else(|| TokenError::claim("exp"))?;
        self.validate_common(claims, is_at_jwt, expires_at, now)
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
        let expires_at = expiry(claims)?.unwrap_or_else(|| now.plus(max_age));
        // The tokens that an authorization server introspects are access tokens, except those that
        // `check_introspected_type` refuses.
        self.validate_common(claims, true, expires_at, now)
    }

    fn validate_common(
        &self,
        claims: &Members,
        is_at_jwt: bool,
        expires_at: UnixMillis,
        now: UnixMillis,
    ) -> Result<ValidatedClaims, TokenError> {
        let starts_at = self.time(claims, expires_at, now)?;
        let client = self.client(claims)?;
        let audience = self.audience(claims);
        let judged = Judged {
            claims,
            is_at_jwt,
            audience: audience.as_ref().ok().copied(),
            client,
        };
        token_use::check(self.profile, &self.format, judged)?;
        audience?;
        let subject = identifier(claims, "sub")?.ok_or_else(|| TokenError::claim("sub"))?;
        self.subject_is_listed(subject)?;
        self.client_is_listed(client)?;
        if claims.contains_key("cnf") {
            return Err(TokenError::Bound);
        }
        Ok(ValidatedClaims {
            subject: subject.to_owned(),
            client: client.map(str::to_owned),
            scopes: self.scopes(claims)?,
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
        let nbf = start(claims, "nbf")?;
        let iat = start(claims, "iat")?;
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

    /// The first configured audience among those of the token. A token that has `aud` must be meant
    /// for hawkgate by that, too, if its audience is in another claim (RFC 7519 §4.1.3).
    fn audience<'a>(&self, claims: &'a Members) -> Result<&'a str, TokenError> {
        let names = &self.format.audience_claims;
        let present = names.iter().find(|name| claims.contains_key(*name));
        let Some(name) = present else {
            return Err(missing(ClaimRole::Audience, names));
        };
        if claims.contains_key("aud") && name != "aud" {
            self.audience_in(claims, "aud")?;
        }
        self.audience_in(claims, name)
    }

    fn audience_in<'a>(&self, claims: &'a Members, name: &str) -> Result<&'a str, TokenError> {
        let wrong = || malformed(ClaimRole::Audience, name);
        let listed = match claims.get(name) {
            Some(Value::String(one)) => vec![one.as_str()],
            Some(list @ Value::Array(_)) => strings(list).ok_or_else(wrong)?,
            _ => return Err(wrong()),
        };
        let accepted = |audience: &&str| self.audiences.iter().any(|known| known == audience);
        let mut listed = listed.into_iter();
        listed.find(accepted).ok_or(TokenError::WrongAudience)
    }

    /// The client, by the first of the configured claims that the token has. All that it has must be
    /// equal.
    fn client<'a>(&self, claims: &'a Members) -> Result<Option<&'a str>, TokenError> {
        let mut client = None;
        for name in &self.format.client_claims {
            let role = ClaimRole::Client;
            let named = checked_identifier(claims, name, || malformed(role, name))?;
            match (client, named) {
                (Some(one), Some(other)) if one != other => {
                    return Err(TokenError::ClientMismatch);
                }
                (None, named) => client = named,
                _ => {}
            }
        }
        Ok(client)
    }

    /// The scopes in the first of the configured claims that the token has: a string of scopes
    /// separated by spaces (RFC 8693 §4.2), or an array as sent by some issuers.
    fn scopes(&self, claims: &Members) -> Result<Vec<String>, TokenError> {
        let mut names = self.format.scope_claims.iter();
        let present = names.find_map(|name| Some((name, claims.get(name)?)));
        let Some((name, value)) = present else {
            return Ok(Vec::new());
        };
        let listed = match value {
            Value::String(text) => Some(text.split(' ').filter(|s| !s.is_empty()).collect()),
            value => strings(value),
        };
        owned(listed).ok_or_else(|| malformed(ClaimRole::Scopes, name))
    }

    /// What to do about a token that was refused with `error`: use another profile, if the token has
    /// the shape of another provider's access tokens, or send the access token.
    pub(super) fn advice(
        &self,
        error: &TokenError,
        header: &Members,
        claims: &Members,
    ) -> Option<Advice> {
        let concerns_format = match error {
            TokenError::WrongType
            | TokenError::IdToken
            | TokenError::NotAccessToken { .. }
            | TokenError::WrongAudience => true,
            TokenError::InvalidClaim { role, .. } => *role == ClaimRole::Audience,
            _ => false,
        };
        if !concerns_format {
            return None;
        }
        if *error != TokenError::WrongAudience {
            let registered = token_use::is_at_jwt(header).then_some(Provider::Rfc9068);
            let mut providers = recognise(header, claims).into_iter().chain(registered);
            let other = providers.find(|provider| {
                let profile = provider.profile().and_then(Profile::from_name);
                profile.is_some_and(|profile| {
                    profile != self.profile && would_accept(profile, header, claims)
                })
            });
            if let Some(provider) = other {
                return Some(Advice::Profile(provider));
            }
        }
        let says_so = *error == TokenError::IdToken;
        (!says_so && self.profile != Profile::Workload && token_use::is_id_token(claims))
            .then_some(Advice::SendAccessToken)
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
/// `token_type` (RFC 7662 §2.2), `token_use` or, in Keycloak's case, in `typ`.
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
    let not_access = claims.contains_key("token_use") && !is("token_use", &["access"]);
    if other || not_access || is("typ", &["Refresh", "Offline", "ID", "Logout"]) {
        return Err(TokenError::WrongType);
    }
    Ok(())
}

/// Whether a token of this shape is an access token by the rules of `profile`.
fn would_accept(profile: Profile, header: &Members, claims: &Members) -> bool {
    let format = profile.format();
    let text = |name: &String| claims.get(name).and_then(Value::as_str);
    let judged = Judged {
        claims,
        is_at_jwt: token_use::is_at_jwt(header),
        audience: format.audience_claims.iter().find_map(text),
        client: format.client_claims.iter().find_map(text),
    };
    // People's ID tokens are not workload identities.
    let is_persons = profile == Profile::Workload
        && (claims.contains_key("nonce") || token_use::is_id_token(claims));
    token_use::accepts_type(&format, header)
        && token_use::check(profile, &format, judged).is_ok()
        && !is_persons
}

/// None of the claims with these names is present.
fn missing(role: ClaimRole, names: &[String]) -> TokenError {
    let name = names.join(" or ").into();
    TokenError::InvalidClaim { role, name }
}

/// The claim is missing or malformed.
fn malformed(role: ClaimRole, name: &str) -> TokenError {
    let name = name.to_owned().into();
    TokenError::InvalidClaim { role, name }
}

/// A claim that identifies a party: not empty, not too long, and without control characters.
pub(super) fn identifier<'a>(
    claims: &'a Members,
    claim: &'static str,
) -> Result<Option<&'a str>, TokenError> {
    checked_identifier(claims, claim, || TokenError::claim(claim))
}

fn checked_identifier<'a>(
    claims: &'a Members,
    claim: &str,
    error: impl FnOnce() -> TokenError,
) -> Result<Option<&'a str>, TokenError> {
    match claims.get(claim) {
        None => Ok(None),
        Some(Value::String(text))
            if (1..=MAX_NAME_BYTES).contains(&text.len()) && !text.contains(char::is_control) =>
        {
            Ok(Some(text))
        }
        Some(_) => Err(error()),
    }
}

/// `exp`.
pub(super) fn expiry(claims: &Members) -> Result<Option<UnixMillis>, TokenError> {
    time(claims, "exp", Rounding::Down)
}

/// `nbf` or `iat`.
pub(super) fn start(
    claims: &Members,
    claim: &'static str,
) -> Result<Option<UnixMillis>, TokenError> {
    time(claims, claim, Rounding::Up)
}

fn time(
    claims: &Members,
    claim: &'static str,
    rounding: Rounding,
) -> Result<Option<UnixMillis>, TokenError> {
    let Some(value) = claims.get(claim) else {
        return Ok(None);
    };
    let time = numeric_date(value, rounding);
    time.map(Some).ok_or_else(|| TokenError::claim(claim))
}

/// Auth0's `permissions`, an array of strings.
fn permissions(claims: &Members) -> Result<Vec<String>, TokenError> {
    let listed = claims.get("permissions").map_or(Some(Vec::new()), strings);
    owned(listed).ok_or_else(|| TokenError::claim("permissions"))
}

fn owned(listed: Option<Vec<&str>>) -> Option<Vec<String>> {
    listed.map(|list| list.into_iter().map(str::to_owned).collect())
}

/// The elements of an array that contains only strings.
fn strings(value: &Value) -> Option<Vec<&str>> {
    value.as_array()?.iter().map(Value::as_str).collect()
}
