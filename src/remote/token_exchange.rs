//! Source `token-exchange`: exchanges the caller's token for another one with the same subject
//! (RFC 8693).

use async_trait::async_trait;

use super::credential_source::{bearer, bind_to_token};
use super::oauth::{Endpoint, Failure, OnBehalfOf, RequestedScopes, TokenResponse};
use crate::credential::{
    Credential, CredentialSource, FetchError, IdentityHasher, Issued, SwapRequest,
};
use crate::token::Caller;

const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";

/// The token type of an OAuth 2.0 access token (RFC 8693 §3).
pub const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";

/// The token type of a JWT, which may also be an access token.
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";

/// The parameters of the token exchange.
#[derive(Clone, Debug)]
pub struct TokenExchangeSettings {
    /// The logical name of the target service.
    pub audience: Option<String>,
    /// The target service as an absolute URI (RFC 8707).
    pub resource: Option<String>,
    /// The scopes requested; if empty, the server's default.
    pub scopes: Vec<String>,
    /// The token type to request; if `None`, any kind of access token is accepted.
    pub requested_token_type: Option<String>,
    /// The token type of callers' tokens.
    pub subject_token_type: String,
}

/// Exchanges each caller's token. The issued token is bound to it, and is not used past its
/// expiry, if that is known.
#[derive(Debug)]
pub struct TokenExchangeSource {
    settings: TokenExchangeSettings,
    endpoint: Endpoint,
}

impl TokenExchangeSource {
    /// `endpoint` is the token endpoint, with hawkgate's own client authentication.
    pub fn new(settings: TokenExchangeSettings, endpoint: Endpoint) -> Self {
        Self { settings, endpoint }
    }

    /// The issued token must have the requested type, or be an access token.
    fn check_type(&self, response: &TokenResponse) -> Result<(), FetchError> {
        let problem = match (
            &self.settings.requested_token_type,
            &response.issued_token_type,
        ) {
            (_, None) => "the response has no issued_token_type",
            (Some(requested), Some(issued)) if issued == requested => return Ok(()),
            (Some(_), Some(_)) => "issued_token_type is not the requested_token_type",
            (None, Some(issued)) if [ACCESS_TOKEN, JWT].contains(&issued.as_str()) => return Ok(()),
            (None, Some(_)) => {
                "issued_token_type is not that of an access token; set requested_token_type"
            }
        };
        Err(FetchError::BadAnswer(problem.into()))
    }
}

#[async_trait]
impl CredentialSource for TokenExchangeSource {
    fn identity(&self, request: &SwapRequest, key: &mut IdentityHasher) -> Result<(), FetchError> {
        bind_to_token(request, key)
    }

    /// Constant: the cache key of a token never changes.
    fn epoch(&self) -> Option<u64> {
        Some(0)
    }

    async fn fetch(&self, request: &SwapRequest) -> Result<Issued, FetchError> {
        let settings = &self.settings;
        let scopes = RequestedScopes::new(&settings.scopes, request)?;
        let scope = scopes.parameter();
        let optional = [
            ("audience", &settings.audience),
            ("resource", &settings.resource),
            ("scope", &scope),
            ("requested_token_type", &settings.requested_token_type),
        ];
        let mut form = vec![
            ("grant_type", GRANT_TYPE),
            ("subject_token", bearer(request)?.expose()),
            ("subject_token_type", settings.subject_token_type.as_str()),
        ];
        form.extend(
            optional
                .iter()
                .filter_map(|(n, v)| Some((*n, v.as_deref()?))),
        );
        let response = self.endpoint.grant(&form).await.map_err(fetch_error)?;
        self.check_type(&response)?;
        scopes.check(&response)?;
        let expires_at = match (response.expires_at, &request.caller) {
            (Some(expiry), Caller::Verified(token)) => Some(expiry.min(token.expires_at())),
            (None, Caller::Verified(token)) => Some(token.expires_at()),
            (
                expiry,
                Caller::Client(_)
                | Caller::Delegated { .. }
                | Caller::Password { .. }
                | Caller::Anonymous,
            ) => expiry,
        };
        Ok(Issued {
            credential: Credential::Bearer(response.access_token),
            expires_at,
            original: None,
        })
    }
}

/// A subject token that is unacceptable "for any reason" gets `invalid_request` (RFC 8693
/// §2.2.2), and so do wrong parameters in the configuration. They cannot be distinguished.
fn fetch_error(failure: Failure) -> FetchError {
    match failure {
        Failure::ErrorResponse(error) if error.status == 400 && error.is("invalid_request") => {
            let cause = error.cause();
            FetchError::Refused(format!(
                "{cause}: the token was rejected, or this source's parameters are wrong"
            ))
        }
        other => other.into_fetch_error(OnBehalfOf::Caller),
    }
}

#[cfg(test)]
mod tests;
