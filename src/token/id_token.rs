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
use super::rules::Rules;
use super::{KeyFetcher, RefreshObserver, TokenError};
use crate::clock::SharedClock;
use crate::token::settings::{Algorithm, KeyLocation, OidcIssuer, Profile};

/// Maximum length of an ID token, in bytes.
pub const MAX_ID_TOKEN_BYTES: usize = 32 * 1024;

/// The tolerated clock difference.
const LEEWAY: Duration = Duration::from_secs(30);

/// Verifies an issuer's ID tokens for one client.
#[derive(Debug)]
pub struct IdTokenVerifier {
    client_id: String,
    rules: Rules,
    keys: Keys,
    clock: SharedClock,
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
        let config = OidcIssuer {
            url: issuer.to_owned(),
            keys: KeyLocation::Discovery,
            ca: None,
            audiences: vec![client_id.to_owned()],
            algorithms: Algorithm::ALL.to_vec(),
            // Accepts any `typ`, or none: no `typ` is registered for ID tokens.
            profile: Profile::Workload,
            leeway: LEEWAY,
            clients: None,
            subjects: Some(vec!["*".to_owned()]),
            verified_max_age: Duration::ZERO,
        };
        let rules = Rules::new(&config);
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

    /// Verifies `token` and returns its subject.
    ///
    /// # Errors
    /// With the first rule that the token violates.
    pub async fn verify(
        &self,
        token: &str,
        expected: Expected<'_>,
    ) -> Result<String, IdTokenError> {
        if token.len() > MAX_ID_TOKEN_BYTES {
            return Err(IdTokenError::TooLarge);
        }
        let jws = Jws::parse(token)?;
        let header = self.rules.validate_header(&jws.header)?;
        let keys = self.keys.select(header.algorithm, header.kid).await?;
        let mut verifiers = keys.verifiers.iter();
        if !verifiers.any(|key| key.verify(jws.signing_input, jws.signature)) {
            return Err(TokenError::BadSignature.into());
        }
        let validated = self.rules.validate_claims(&jws.claims, self.clock.now())?;
        if !jws.claims.contains_key("iat") {
            return Err(TokenError::InvalidClaim { name: "iat" }.into());
        }
        self.authorized_party(&jws.claims)?;
        check_nonce(&jws.claims, expected.nonce)?;
        if let Some(access_token) = expected.access_token {
            check_access_token(&jws.claims, header.algorithm, access_token)?;
        }
        match expected.subject {
            Some(subject) if subject != validated.subject => Err(IdTokenError::OtherSubject),
            _ => Ok(validated.subject),
        }
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
