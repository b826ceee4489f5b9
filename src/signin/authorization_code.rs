//! One authorization request and the one answer that it may have (RFC 6749 §4.1, RFC 7636,
//! RFC 9207, OpenID Connect Core §3.1.2).

use std::time::Duration;

use aws_lc_rs::{constant_time, digest, rand};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use url::Url;

use crate::secret::SecretString;

/// How long the person may take.
pub const LIFETIME: Duration = Duration::from_mins(10);

/// Errors of the authorization endpoint, in words (RFC 6749 §4.1.2.1, OpenID Connect Core
/// §3.1.2.6, RFC 8707 §2).
const ERROR_DESCRIPTIONS: [(&str, &str); 13] = [
    (
        "access_denied",
        "the sign-in was refused, by you or by the issuer",
    ),
    (
        "invalid_request",
        "the issuer finds the request wrong; it may need another --redirect-uri or --port",
    ),
    (
        "unauthorized_client",
        "this client may not sign people in; look at its grants",
    ),
    (
        "unsupported_response_type",
        "the issuer does not let this client use codes",
    ),
    (
        "invalid_scope",
        "the issuer has no such scope, or not for this client; look at --scope",
    ),
    (
        "invalid_target",
        "the issuer has no such API; look at --resource and --audience",
    ),
    ("server_error", "the issuer failed; try again"),
    (
        "temporarily_unavailable",
        "the issuer is overloaded; try again later",
    ),
    ("login_required", "the issuer wants a fresh sign-in"),
    (
        "consent_required",
        "the issuer wants your consent, and could not ask for it",
    ),
    (
        "interaction_required",
        "the issuer wants to ask you something, and could not",
    ),
    (
        "account_selection_required",
        "the issuer wants to know which account",
    ),
    (
        "request_not_supported",
        "the issuer does not take such requests",
    ),
];

/// What is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuthorizationRequest {
    /// Scopes, separated by spaces.
    pub scope: String,
    /// Auth0's way to name the API.
    pub audience: Option<String>,
    /// RFC 8707's.
    pub resources: Vec<String>,
}

impl AuthorizationRequest {
    /// Whether an ID token must come.
    pub fn wants_id_token(&self) -> bool {
        self.has_scope("openid")
    }

    fn has_scope(&self, wanted: &str) -> bool {
        self.scope.split(' ').any(|scope| scope == wanted)
    }

    /// As parameters.
    pub fn parameters(&self) -> Vec<(&str, &str)> {
        let mut parameters = vec![("scope", self.scope.as_str())];
        parameters.extend(self.audience.iter().map(|a| ("audience", a.as_str())));
        parameters.extend(self.resources.iter().map(|r| ("resource", r.as_str())));
        parameters.retain(|(_, value)| !value.is_empty());
        parameters
    }
}

/// A sign-in under way. Used up by its answer.
#[derive(Debug)]
pub struct AuthorizationFlow {
    issuer: String,
    iss_required: bool,
    redirect_uri: Url,
    state: SecretString,
    nonce: String,
    verifier: SecretString,
    begun_at: Duration,
    redeemed: bool,
}

/// No randomness to be had.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the system gives no random numbers")]
pub struct RandomnessError;

/// A code that the issuer gave for this very attempt.
#[derive(Debug)]
pub struct AuthorizationCode {
    /// The code.
    pub code: SecretString,
    /// Proves that whoever redeems it is who asked (RFC 7636 §4.5).
    pub verifier: SecretString,
    /// Must be in the ID token.
    pub nonce: String,
    /// As it was in the request.
    pub redirect_uri: Url,
}

/// What is wrong with a callback. Holds nothing that came with it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallbackError {
    /// Not the answer to this attempt: go on waiting.
    #[error("this is not the answer to the sign-in that was begun here (state)")]
    StateMismatch,
    /// It was answered before.
    #[error("this sign-in has had its answer; begin a new one")]
    AlreadyUsed,
    /// It took too long.
    #[error("the sign-in took longer than 10 minutes; begin a new one")]
    Expired,
    /// From another issuer (RFC 9207 §2.4).
    #[error(
        "the answer comes from another issuer than the one asked, or does not say from which (iss): \
         somebody may be mixing issuers up on purpose"
    )]
    IssuerMismatch,
    /// The issuer said no.
    #[error("{words} ({code})")]
    Denied {
        /// What it means.
        words: &'static str,
        /// The code, from a closed list.
        code: &'static str,
    },
    /// A parameter is there twice, or there is neither code nor error.
    #[error("the answer is malformed")]
    Malformed,
}

impl AuthorizationFlow {
    /// Begins at `now` (of the monotonic clock) with `issuer`, whose metadata may promise
    /// `iss` in each answer (RFC 9207).
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn begin(
        issuer: &str,
        iss_required: bool,
        redirect_uri: Url,
        now: Duration,
    ) -> Result<Self, RandomnessError> {
        Ok(Self {
            issuer: issuer.to_owned(),
            iss_required,
            redirect_uri,
            state: SecretString::new(random()?),
            nonce: random()?,
            verifier: SecretString::new(random()?),
            begun_at: now,
            redeemed: false,
        })
    }

    /// Where the person signs in. With `offline_access` among the scopes consent is asked
    /// for, without which there is no refresh token (OpenID Connect Core §11).
    pub fn url(
        &self,
        authorization_endpoint: &Url,
        client_id: &str,
        request: &AuthorizationRequest,
    ) -> Url {
        let challenge = digest::digest(&digest::SHA256, self.verifier.expose().as_bytes());
        let mut url = authorization_endpoint.clone();
        let mut query = url.query_pairs_mut();
        query
            .append_pair("response_type", "code")
            .append_pair("client_id", client_id)
            .append_pair("redirect_uri", self.redirect_uri.as_str())
            .append_pair("state", self.state.expose())
            .append_pair("code_challenge", &URL_SAFE_NO_PAD.encode(challenge))
            .append_pair("code_challenge_method", "S256")
            .extend_pairs(request.parameters());
        if request.wants_id_token() {
            query.append_pair("nonce", &self.nonce);
        }
        if request.has_scope("offline_access") {
            query.append_pair("prompt", "consent");
        }
        drop(query);
        url
    }

    /// Takes the query of a callback for what it is. Only an answer with our state uses the
    /// attempt up, so that no other page can end it.
    ///
    /// # Errors
    /// Of which only [`CallbackError::StateMismatch`] and [`CallbackError::AlreadyUsed`] are no end.
    pub fn redeem(
        &mut self,
        query: &str,
        now: Duration,
    ) -> Result<AuthorizationCode, CallbackError> {
        let answer = AuthorizationResponse::read(query);
        let state = answer.state.as_ref();
        if !state.is_some_and(|state| self.is_ours(state)) {
            return Err(CallbackError::StateMismatch);
        }
        if std::mem::replace(&mut self.redeemed, true) {
            return Err(CallbackError::AlreadyUsed);
        }
        if now.saturating_sub(self.begun_at) >= LIFETIME {
            return Err(CallbackError::Expired);
        }
        if answer.repeated {
            return Err(CallbackError::Malformed);
        }
        match answer.iss {
            Some(iss) if iss != self.issuer => return Err(CallbackError::IssuerMismatch),
            None if self.iss_required => return Err(CallbackError::IssuerMismatch),
            _ => {}
        }
        match (answer.code, answer.error) {
            (Some(code), None) if !code.expose().is_empty() => Ok(AuthorizationCode {
                code,
                verifier: self.verifier.clone(),
                nonce: self.nonce.clone(),
                redirect_uri: self.redirect_uri.clone(),
            }),
            (_, Some(error)) => Err(denied(&error)),
            _ => Err(CallbackError::Malformed),
        }
    }

    fn is_ours(&self, state: &SecretString) -> bool {
        let (theirs, ours) = (state.expose().as_bytes(), self.state.expose().as_bytes());
        constant_time::verify_slices_are_equal(theirs, ours).is_ok()
    }
}

fn denied(error: &str) -> CallbackError {
    const OTHER: (&str, &str) = (
        "an error that is not in the standards",
        "the issuer refused",
    );
    let known = ERROR_DESCRIPTIONS
        .into_iter()
        .find(|(code, _)| *code == error);
    let (code, words) = known.unwrap_or(OTHER);
    CallbackError::Denied { words, code }
}

/// The parameters of an answer.
#[derive(Default)]
struct AuthorizationResponse {
    code: Option<SecretString>,
    state: Option<SecretString>,
    iss: Option<String>,
    error: Option<String>,
    /// One of them is there twice (RFC 6749 §3.1).
    repeated: bool,
}

impl AuthorizationResponse {
    fn read(query: &str) -> Self {
        let mut answer = Self::default();
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            let value = value.into_owned();
            let before = match name.as_ref() {
                "code" => answer.code.replace(SecretString::new(value)).is_some(),
                "state" => answer.state.replace(SecretString::new(value)).is_some(),
                "iss" => answer.iss.replace(value).is_some(),
                "error" => answer.error.replace(value).is_some(),
                _ => false,
            };
            answer.repeated |= before;
        }
        answer
    }
}

/// 256 random bits, as RFC 7636 §4.1 wants them written.
fn random() -> Result<String, RandomnessError> {
    let mut bytes = [0; 32];
    rand::fill(&mut bytes).map_err(|_| RandomnessError)?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

#[cfg(test)]
mod tests;
