//! The authorization code flow: builds the authorization request with PKCE, and validates the
//! redirect that answers it (RFC 6749 §4.1, RFC 7636, RFC 9207, OpenID Connect Core
//! §3.1.2).

use std::time::Duration;

use aws_lc_rs::{constant_time, digest, rand};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use url::Url;

use crate::secret::SecretString;

/// How long the user may take to sign in.
pub const LIFETIME: Duration = Duration::from_mins(10);

/// Authorization errors and what they mean to the user (RFC 6749 §4.1.2.1, OpenID Connect Core
/// §3.1.2.6, RFC 8707 §2).
const ERROR_DESCRIPTIONS: [(&str, &str); 13] = [
    (
        "access_denied",
        "the sign-in was refused, by you or by the issuer",
    ),
    (
        "invalid_request",
        "the issuer rejected the request; it may need another --redirect-uri or --port",
    ),
    (
        "unauthorized_client",
        "this client may not use the authorization code grant; check its grant types",
    ),
    (
        "unsupported_response_type",
        "the issuer does not let this client use authorization codes",
    ),
    (
        "invalid_scope",
        "a scope is unknown or not allowed for this client; check --scope",
    ),
    (
        "invalid_target",
        "the issuer does not know this API; check --resource and --audience",
    ),
    (
        "server_error",
        "the issuer had an internal error; try again",
    ),
    (
        "temporarily_unavailable",
        "the issuer is overloaded; try again later",
    ),
    ("login_required", "the issuer requires a fresh sign-in"),
    (
        "consent_required",
        "the issuer requires your consent and could not ask for it",
    ),
    (
        "interaction_required",
        "the issuer requires your interaction and could not ask for it",
    ),
    (
        "account_selection_required",
        "the issuer needs you to choose an account",
    ),
    (
        "request_not_supported",
        "the issuer does not support this kind of request",
    ),
];

/// The scopes and APIs that the client requests access to on behalf of the user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuthorizationRequest {
    /// Scopes, separated by spaces.
    pub scope: String,
    /// The API, as Auth0's `audience` parameter.
    pub audience: Option<String>,
    /// The APIs, as `resource` parameters (RFC 8707).
    pub resources: Vec<String>,
    /// Whether to send no code challenge, for servers that know nothing of PKCE (Taskcluster's).
    pub without_pkce: bool,
}

impl AuthorizationRequest {
    /// Whether the response must include an ID token.
    pub fn wants_id_token(&self) -> bool {
        self.has_scope("openid")
    }

    fn has_scope(&self, name: &str) -> bool {
        self.scope.split(' ').any(|scope| scope == name)
    }

    /// The request's parameters, without empty ones.
    pub fn parameters(&self) -> Vec<(&str, &str)> {
        let mut parameters = vec![("scope", self.scope.as_str())];
        parameters.extend(self.audience.iter().map(|a| ("audience", a.as_str())));
        parameters.extend(self.resources.iter().map(|r| ("resource", r.as_str())));
        parameters.retain(|(_, value)| !value.is_empty());
        parameters
    }
}

/// One authorization request. It accepts a single redirect.
#[derive(Debug)]
pub struct AuthorizationFlow {
    saved: SavedFlow,
    used: bool,
}

/// What an [`AuthorizationFlow`] consists of, for storing it until the redirect.
#[derive(Clone, Debug)]
pub struct SavedFlow {
    /// The issuer that the request goes to.
    pub issuer: String,
    /// Whether the response must have `iss` (RFC 9207).
    pub iss_required: bool,
    /// Where the response goes.
    pub redirect_uri: Url,
    /// `state`
    pub state: SecretString,
    /// `nonce`
    pub nonce: String,
    /// The PKCE code verifier (RFC 7636 §4.1).
    pub code_verifier: SecretString,
    /// On the clock of `now` in [`AuthorizationFlow::accept_redirect`].
    pub started_at: Duration,
}

/// The system's random number generator failed.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the system's random number generator failed")]
pub struct RandomnessError;

/// An authorization code and the values needed to exchange it for tokens.
#[derive(Debug)]
pub struct AuthorizationCode {
    /// The code.
    pub code: SecretString,
    /// The PKCE code verifier (RFC 7636 §4.5).
    pub code_verifier: SecretString,
    /// The nonce that the ID token must contain.
    pub nonce: String,
    /// The redirect URI of the authorization request.
    pub redirect_uri: Url,
}

/// Why a redirect was not accepted. The messages quote none of its parameters.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallbackError {
    /// The redirect belongs to another request; keep waiting.
    #[error("this response does not belong to the sign-in started here (state mismatch)")]
    StateMismatch,
    /// The flow has already accepted a redirect.
    #[error("this sign-in has already received a response; start a new one")]
    AlreadyUsed,
    /// The redirect came after [`LIFETIME`].
    #[error("the sign-in took longer than 10 minutes; start a new one")]
    Expired,
    /// `iss` is missing or names another issuer (RFC 9207 §2.4).
    #[error(
        "the response comes from another issuer, or does not say from which (iss): this may be a \
         mix-up attack"
    )]
    IssuerMismatch,
    /// The issuer returned an error.
    #[error("{description} ({code})")]
    Denied {
        /// What the error means.
        description: &'static str,
        /// The error code, from a closed list.
        code: &'static str,
    },
    /// A parameter is repeated, or there is neither a code nor an error.
    #[error("the response is malformed")]
    Malformed,
}

impl AuthorizationFlow {
    /// Starts at `now` (monotonic time). `iss_required` says whether the metadata of `issuer`
    /// promises an `iss` parameter in every response (RFC 9207).
    ///
    /// # Errors
    /// When the system's random number generator fails.
    pub fn start(
        issuer: &str,
        iss_required: bool,
        redirect_uri: Url,
        now: Duration,
    ) -> Result<Self, RandomnessError> {
        Ok(Self::restore(SavedFlow {
            issuer: issuer.to_owned(),
            iss_required,
            redirect_uri,
            state: SecretString::new(random()?),
            nonce: random()?,
            code_verifier: SecretString::new(random()?),
            started_at: now,
        }))
    }

    /// A flow that was stored. It does not know whether it has accepted a redirect elsewhere.
    pub fn restore(saved: SavedFlow) -> Self {
        Self { saved, used: false }
    }

    /// What to store.
    pub fn saved(&self) -> &SavedFlow {
        &self.saved
    }

    /// The URL where the user signs in. With the scope `offline_access`, it asks for consent,
    /// because the issuer would otherwise give no refresh token (OpenID Connect Core §11).
    pub fn url(
        &self,
        authorization_endpoint: &Url,
        client_id: &str,
        request: &AuthorizationRequest,
    ) -> Url {
        let challenge = digest::digest(
            &digest::SHA256,
            self.saved.code_verifier.expose().as_bytes(),
        );
        let mut url = authorization_endpoint.clone();
        let mut query = url.query_pairs_mut();
        query
            .append_pair("response_type", "code")
            .append_pair("client_id", client_id)
            .append_pair("redirect_uri", self.saved.redirect_uri.as_str())
            .append_pair("state", self.saved.state.expose())
            .extend_pairs(request.parameters());
        if !request.without_pkce {
            query
                .append_pair("code_challenge", &URL_SAFE_NO_PAD.encode(challenge))
                .append_pair("code_challenge_method", "S256");
        }
        if request.wants_id_token() {
            query.append_pair("nonce", &self.saved.nonce);
        }
        if request.has_scope("offline_access") {
            query.append_pair("prompt", "consent");
        }
        drop(query);
        url
    }

    /// Validates the query of a redirect. Only a redirect with the right `state` consumes the flow,
    /// so that no other page can end it.
    ///
    /// # Errors
    /// [`CallbackError::StateMismatch`] and [`CallbackError::AlreadyUsed`] leave the flow
    /// unchanged; every other error ends it.
    pub fn accept_redirect(
        &mut self,
        query: &str,
        now: Duration,
    ) -> Result<AuthorizationCode, CallbackError> {
        let response = AuthorizationResponse::parse(query);
        let state = response.state.as_ref();
        if !state.is_some_and(|state| self.matches_state(state)) {
            return Err(CallbackError::StateMismatch);
        }
        if std::mem::replace(&mut self.used, true) {
            return Err(CallbackError::AlreadyUsed);
        }
        if now.saturating_sub(self.saved.started_at) >= LIFETIME {
            return Err(CallbackError::Expired);
        }
        if response.repeated {
            return Err(CallbackError::Malformed);
        }
        match response.iss {
            Some(iss) if iss != self.saved.issuer => return Err(CallbackError::IssuerMismatch),
            None if self.saved.iss_required => return Err(CallbackError::IssuerMismatch),
            _ => {}
        }
        match (response.code, response.error) {
            (Some(code), None) if !code.expose().is_empty() => Ok(AuthorizationCode {
                code,
                code_verifier: self.saved.code_verifier.clone(),
                nonce: self.saved.nonce.clone(),
                redirect_uri: self.saved.redirect_uri.clone(),
            }),
            (_, Some(error)) => Err(denied(&error)),
            _ => Err(CallbackError::Malformed),
        }
    }

    fn matches_state(&self, state: &SecretString) -> bool {
        let (received, sent) = (
            state.expose().as_bytes(),
            self.saved.state.expose().as_bytes(),
        );
        constant_time::verify_slices_are_equal(received, sent).is_ok()
    }
}

fn denied(error: &str) -> CallbackError {
    const OTHER: (&str, &str) = ("a non-standard error code", "the issuer refused");
    let known = ERROR_DESCRIPTIONS
        .into_iter()
        .find(|(code, _)| *code == error);
    let (code, description) = known.unwrap_or(OTHER);
    CallbackError::Denied { description, code }
}

/// The parameters of an authorization response.
#[derive(Default)]
struct AuthorizationResponse {
    code: Option<SecretString>,
    state: Option<SecretString>,
    iss: Option<String>,
    error: Option<String>,
    /// Whether any of them occurs more than once (RFC 6749 §3.1).
    repeated: bool,
}

impl AuthorizationResponse {
    fn parse(query: &str) -> Self {
        let mut response = Self::default();
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            let value = value.into_owned();
            let repeated = match name.as_ref() {
                "code" => response.code.replace(SecretString::new(value)).is_some(),
                "state" => response.state.replace(SecretString::new(value)).is_some(),
                "iss" => response.iss.replace(value).is_some(),
                "error" => response.error.replace(value).is_some(),
                _ => false,
            };
            response.repeated |= repeated;
        }
        response
    }
}

/// 256 random bits in base64url, a valid code verifier (RFC 7636 §4.1).
fn random() -> Result<String, RandomnessError> {
    let mut bytes = [0; 32];
    rand::fill(&mut bytes).map_err(|_| RandomnessError)?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

#[cfg(test)]
mod tests;
