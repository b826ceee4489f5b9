//! ID tokens, which identify the user who signed in to a client (OpenID Connect Core §2, §3.1.3.7).
//! Implements the rules that go beyond [`super::rules`].

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::{constant_time, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::jws::Jws;
use super::keys::Keys;
use super::rules::{Rules, identifier};
use super::{Issuer, KeyFetcher, RefreshObserver, TokenError};
use crate::clock::SharedClock;
use crate::token::settings::{Algorithm, KeyLocation, OidcIssuer, Profile};

/// Maximum length of an ID token, in bytes.
pub const MAX_ID_TOKEN_BYTES: usize = 32 * 1024;

/// The tolerated clock difference.
const LEEWAY: Duration = Duration::from_secs(30);

/// Maximum length of `name`, in bytes. It is shown, and kept in a cookie.
const MAX_NAME_BYTES: usize = 200;

/// Maximum length of `email`, in bytes (RFC 5321 §4.5.3.1.3, without the brackets).
const MAX_EMAIL_BYTES: usize = 254;

/// Verifies an issuer's ID tokens for one client.
#[derive(Debug)]
pub struct IdTokenVerifier {
    pub(super) client_id: String,
    pub(super) rules: Rules,
    pub(super) keys: Keys,
    pub(super) clock: SharedClock,
}

/// What a verified ID token says about the user (OpenID Connect Core §5.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdTokenClaims {
    /// `sub`.
    pub subject: String,
    /// `name`, to be shown; `None` also if it is not fit for that.
    pub name: Option<String>,
    /// `email`, likewise.
    pub email: Option<String>,
    /// `sid`: the issuer's identifier of the session (OpenID Connect Back-Channel Logout 1.0 §2.1).
    pub session: Option<String>,
}

/// The values that an ID token must match, in addition to its issuer and client.
#[derive(Clone, Copy, Debug, Default)]
pub struct Expected<'a> {
    /// The `nonce` of the authorization request; `None` if none was sent (RFC 8628).
    pub nonce: Option<&'a str>,
    /// The access token that was issued with the ID token, for `at_hash`.
    pub access_token: Option<&'a str>,
    /// The subject of the earlier sign-in (OpenID Connect Core §12.2).
    pub subject: Option<&'a str>,
}

/// Why an ID token was refused. Contains no part of the token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdTokenError {
    /// It violates a rule that applies to every token.
    #[error("the ID token is not valid: {0}")]
    Token(#[from] TokenError),
    /// It is larger than [`MAX_ID_TOKEN_BYTES`].
    #[error("the ID token is larger than 32 KiB")]
    TooLarge,
    /// `azp` names another client, or is missing although there are several audiences.
    #[error("the ID token was issued for another client (azp)")]
    OtherClient,
    /// `nonce` is not the one that was sent.
    #[error("the ID token belongs to another sign-in (nonce)")]
    Nonce,
    /// `at_hash` does not match the access token.
    #[error("the ID token does not belong to the access token that came with it (at_hash)")]
    AccessTokenHash,
    /// `sub` is not the subject of the earlier sign-in.
    #[error("the ID token identifies a user other than the one who signed in before")]
    OtherSubject,
}

impl IdTokenVerifier {
    /// A verifier of ID tokens issued by `issuer` (the exact `iss`) to `client_id`. Keys are
    /// fetched when the first token is verified. Symmetric algorithms and `none` are never
    /// accepted.
    pub fn new(
        issuer: &str,
        client_id: &str,
        fetcher: Arc<dyn KeyFetcher>,
        clock: SharedClock,
    ) -> Self {
        let rules = id_token_rules(issuer, client_id, Algorithm::ALL, LEEWAY);
        let keys = Keys::new(
            "sign-in".into(),
            fetcher,
            Arc::clone(&clock),
            rules.algorithms.clone(),
            RefreshObserver::default(),
        );
        Self {
            client_id: client_id.to_owned(),
            rules,
            keys,
            clock,
        }
    }

    /// A verifier of ID tokens that `issuer` issues to `client_id`, with that issuer's keys (not
    /// fetched a second time), algorithms and leeway. `None` unless it is an `oidc` issuer.
    pub fn sharing_keys(issuer: &Issuer, client_id: &str) -> Option<Self> {
        let (rules, keys, clock) = issuer.public_keys()?;
        Some(Self {
            client_id: client_id.to_owned(),
            rules: id_token_rules(&rules.url, client_id, &rules.algorithms, rules.leeway),
            keys: keys.clone(),
            clock: Arc::clone(clock),
        })
    }

    /// Verifies `token` and returns what it says about the user.
    ///
    /// # Errors
    /// With the first rule that the token violates.
    pub async fn verify(
        &self,
        token: &str,
        expected: Expected<'_>,
    ) -> Result<IdTokenClaims, IdTokenError> {
        let (jws, algorithm, signature) = self.check_signature(token).await?;
        signature?;
        self.check_claims(&jws.claims, algorithm, expected)
    }

    /// Like [`Self::verify`], for a token that was received from the token endpoint itself. While the
    /// issuer's keys are not available, the connection to that endpoint stands in for the signature
    /// (OpenID Connect Core §3.1.3.7, step 6). For renewals, whose tokens must not be thrown away:
    /// the issuer may have replaced the refresh token.
    ///
    /// # Errors
    /// With the first rule that the token violates.
    pub async fn verify_renewal(
        &self,
        token: &str,
        expected: Expected<'_>,
    ) -> Result<IdTokenClaims, IdTokenError> {
        let (jws, algorithm, signature) = self.check_signature(token).await?;
        match signature {
            Ok(_) | Err(TokenError::KeysUnavailable { .. }) => {
                self.check_claims(&jws.claims, algorithm, expected)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Parses `token`, and checks its header and its signature.
    async fn check_signature<'t>(
        &self,
        token: &'t str,
    ) -> Result<(Jws<'t>, Algorithm, Result<u64, TokenError>), IdTokenError> {
        if token.len() > MAX_ID_TOKEN_BYTES {
            return Err(IdTokenError::TooLarge);
        }
        let jws = Jws::parse(token)?;
        let header = self.rules.validate_header(&jws.header)?;
        let (algorithm, signature) = (header.algorithm, self.keys.verify(&header, &jws).await);
        Ok((jws, algorithm, signature))
    }

    fn check_claims(
        &self,
        claims: &Map<String, Value>,
        algorithm: Algorithm,
        expected: Expected<'_>,
    ) -> Result<IdTokenClaims, IdTokenError> {
        let validated = self
            .rules
            .validate_claims(claims, false, self.clock.now())?;
        if !claims.contains_key("iat") {
            return Err(TokenError::claim("iat").into());
        }
        self.authorized_party(claims)?;
        check_nonce(claims, expected.nonce)?;
        if let Some(access_token) = expected.access_token {
            check_access_token(claims, algorithm, access_token)?;
        }
        if expected.subject.is_some_and(|s| s != validated.subject) {
            return Err(IdTokenError::OtherSubject);
        }
        Ok(IdTokenClaims {
            subject: validated.subject,
            name: text_to_show(claims, "name", MAX_NAME_BYTES),
            email: text_to_show(claims, "email", MAX_EMAIL_BYTES),
            // A logout token names the session by this, so it is not left out.
            session: identifier(claims, "sid")?.map(str::to_owned),
        })
    }

    /// OpenID Connect Core §3.1.3.7, steps 4 and 5. If there are several audiences, only `azp`
    /// identifies the one that the token was issued to.
    fn authorized_party(&self, claims: &Map<String, Value>) -> Result<(), IdTokenError> {
        let several = claims
            .get("aud")
            .and_then(Value::as_array)
            .is_some_and(|list| list.len() > 1);
        match claims.get("azp").and_then(Value::as_str) {
            Some(azp) if azp == self.client_id => Ok(()),
            None if !several => Ok(()),
            _ => Err(IdTokenError::OtherClient),
        }
    }
}

/// The rules that ID tokens share with access tokens.
fn id_token_rules(
    issuer: &str,
    client_id: &str,
    algorithms: &[Algorithm],
    leeway: Duration,
) -> Rules {
    Rules::new(&OidcIssuer {
        url: issuer.to_owned(),
        keys: KeyLocation::Discovery,
        ca: None,
        audiences: vec![client_id.to_owned()],
        algorithms: algorithms.to_vec(),
        // Accepts any `typ`, or none: no `typ` is registered for ID tokens.
        profile: Profile::Workload,
        format: Profile::Workload.format(),
        leeway,
        clients: None,
        subjects: Some(vec!["*".to_owned()]),
        verified_max_age: Duration::ZERO,
    })
}

/// A claim that is shown to people: without control characters, and without characters that change
/// the direction of the text around it (Unicode Standard Annex 9 §2).
fn text_to_show(claims: &Map<String, Value>, claim: &str, max_bytes: usize) -> Option<String> {
    let changes_direction = |c: char| matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let text = claims.get(claim)?.as_str()?.trim();
    let fit = (1..=max_bytes).contains(&text.len())
        && !text.contains(|c: char| c.is_control() || changes_direction(c));
    fit.then(|| text.to_owned())
}

fn check_nonce(claims: &Map<String, Value>, sent: Option<&str>) -> Result<(), IdTokenError> {
    let Some(sent) = sent else {
        return Ok(());
    };
    let claimed = claims.get("nonce").and_then(Value::as_str);
    let same = |claimed: &str| {
        constant_time::verify_slices_are_equal(claimed.as_bytes(), sent.as_bytes()).is_ok()
    };
    if claimed.is_some_and(same) {
        Ok(())
    } else {
        Err(IdTokenError::Nonce)
    }
}

/// `at_hash` is the left half of the access token's hash (OpenID Connect Core §3.1.3.6). It is
/// optional in the code flow, but must be correct if present.
fn check_access_token(
    claims: &Map<String, Value>,
    algorithm: Algorithm,
    access_token: &str,
) -> Result<(), IdTokenError> {
    use Algorithm::{
        ES256, ES384, Ed25519, EdDSA, HS256, HS384, HS512, PS256, PS384, PS512, RS256, RS384, RS512,
    };
    let Some(claimed) = claims.get("at_hash") else {
        return Ok(());
    };
    let hash = match algorithm {
        RS256 | PS256 | ES256 | HS256 => &digest::SHA256,
        RS384 | PS384 | ES384 | HS384 => &digest::SHA384,
        RS512 | PS512 | EdDSA | Ed25519 | HS512 => &digest::SHA512,
    };
    let full_hash = digest::digest(hash, access_token.as_bytes());
    let (half, _) = full_hash.as_ref().split_at(full_hash.as_ref().len() / 2);
    if claimed.as_str() == Some(&URL_SAFE_NO_PAD.encode(half)) {
        Ok(())
    } else {
        Err(IdTokenError::AccessTokenHash)
    }
}

#[cfg(test)]
mod tests;
