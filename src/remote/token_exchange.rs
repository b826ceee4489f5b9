//! Source `token-exchange` (RFC 8693): the caller's token for another one, of the same
//! person or program.

use async_trait::async_trait;

use super::oauth::{About, Endpoint, Failure, Granted, Scopes};
use super::taskcluster_exchange::{bearer, bind_to_token};
use crate::credential::{
    Credential, CredentialSource, FetchError, IdentityHasher, Issued, SwapRequest,
};
use crate::token::Caller;

const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";

/// An OAuth2 access token (RFC 8693 §3).
pub const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";

/// A JWT; what is issued as such may be an access token too.
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";

/// What is exchanged for what.
#[derive(Clone, Debug)]
pub struct TokenExchangeSettings {
    /// The logical name of whom the new token is for.
    pub audience: Option<String>,
    /// Whom it is for by RFC 8707: an absolute URI.
    pub resource: Option<String>,
    /// Empty: what the server gives by itself.
    pub scopes: Vec<String>,
    /// What is wanted; the server's choice when `None`, as long as it is an access token.
    pub requested_token_type: Option<String>,
    /// What callers' tokens are.
    pub subject_token_type: String,
}

/// Exchanges each caller's token. What is issued is bound to that token, and is not used
/// for longer than that is valid, where hawkgate knows how long.
#[derive(Debug)]
pub struct TokenExchangeSource {
    settings: TokenExchangeSettings,
    endpoint: Endpoint,
}

impl TokenExchangeSource {
    /// `endpoint` is the token endpoint, asked as hawkgate's own client.
    pub fn new(settings: TokenExchangeSettings, endpoint: Endpoint) -> Self {
        Self { settings, endpoint }
    }

    /// What was issued must be what was asked for, or an access token.
    fn check_type(&self, granted: &Granted) -> Result<(), FetchError> {
        let problem = match (
            &self.settings.requested_token_type,
            &granted.issued_token_type,
        ) {
            (_, None) => "the answer has no issued_token_type",
            (Some(wanted), Some(issued)) if issued == wanted => return Ok(()),
            (Some(_), Some(_)) => "issued_token_type is not the requested_token_type",
            (None, Some(issued)) if [ACCESS_TOKEN, JWT].contains(&issued.as_str()) => return Ok(()),
            (None, Some(_)) => "issued_token_type is no access token's; set requested_token_type",
        };
        Err(FetchError::BadAnswer(problem.into()))
    }
}

#[async_trait]
impl CredentialSource for TokenExchangeSource {
    fn identity(&self, request: &SwapRequest, key: &mut IdentityHasher) -> Result<(), FetchError> {
        bind_to_token(request, key)
    }

    /// The same for the same token at all times.
    fn epoch(&self) -> Option<u64> {
        Some(0)
    }

    async fn fetch(&self, request: &SwapRequest) -> Result<Issued, FetchError> {
        let settings = &self.settings;
        let scopes = Scopes::new(&settings.scopes, request)?;
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
        let granted = self.endpoint.grant(&form).await.map_err(blamed)?;
        self.check_type(&granted)?;
        scopes.check(&granted)?;
        let expires_at = match (granted.expires_at, &request.caller) {
            (Some(end), Caller::Verified(token)) => Some(end.min(token.expires_at())),
            (None, Caller::Verified(token)) => Some(token.expires_at()),
            (end, Caller::Delegated { .. } | Caller::Password { .. } | Caller::Anonymous) => end,
        };
        Ok(Issued {
            credential: Credential::Bearer(granted.access_token),
            expires_at,
        })
    }
}

/// A subject token that is no good "for any reason" is an `invalid_request` here (RFC 8693
/// §2.2.2), as are parameters that the operator has to mend; they cannot be told apart.
fn blamed(failure: Failure) -> FetchError {
    match failure {
        Failure::Denied(denied) if denied.status == 400 && denied.is("invalid_request") => {
            let cause = denied.cause();
            FetchError::Refused(format!(
                "{cause}: the token, or else this source's parameters"
            ))
        }
        other => other.into_fetch_error(About::Caller),
    }
}

#[cfg(test)]
mod tests;
