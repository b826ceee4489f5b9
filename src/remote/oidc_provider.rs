//! The provider of sessions of kind `oidc`: an OpenID provider with the authorization code flow
//! (OpenID Connect Core §3.1, RFC 6749 §4.1, §6; `docs/design/sessions.md`).

use std::sync::Arc;

use async_trait::async_trait;
use url::Url;

use super::discovery::DiscoveryFetcher;
use super::http_client::{HttpClient, HttpClientOptions, TransportError};
use super::jwks::key_client;
use super::oauth::{Endpoint, MAX_RESPONSE_BYTES, TokenResponse};
use super::provider_metadata::{
    MetadataCache, MetadataDiscoveryError, MetadataUnavailable, ProviderMetadata,
};
use super::settings::OidcProviderSettings;
use crate::clock::{SharedClock, UnixMillis};
use crate::secret::SecretString;
use crate::session::{
    IdentityProvider, LogoutToken, LogoutTokenError, ProviderEndpoints, ProviderError,
    ProviderGrant, SessionGrant,
};
use crate::signin::AuthorizationCode;
use crate::token::{
    self, BearerToken, Caller, Expected, IdTokenError, IdTokenVerifier, Issuer,
    LogoutTokenVerifier, MAX_JWKS_BYTES, TokenError,
};

/// An OpenID provider. Access tokens are verified by the session's issuer, like those of any
/// caller.
#[derive(Debug)]
pub struct OidcProvider {
    settings: OidcProviderSettings,
    issuer: Arc<Issuer>,
    id_tokens: IdTokenVerifier,
    logout_tokens: LogoutTokenVerifier,
    metadata: MetadataCache,
    client: HttpClient,
    clock: SharedClock,
}

impl OidcProvider {
    /// `issuer` is the one that `settings` name; ID tokens and
    /// logout tokens are verified with its keys, or with those that the provider's metadata names
    /// if it introspects tokens. Nothing is fetched yet.
    ///
    /// # Errors
    /// When an HTTP client cannot be built.
    pub fn new(
        settings: OidcProviderSettings,
        issuer: Arc<Issuer>,
        clock: SharedClock,
    ) -> Result<Self, TransportError> {
        let client = |max_bytes| {
            HttpClient::new(&HttpClientOptions {
                timeout: settings.timeout,
                max_bytes,
                ca: settings.ca.clone(),
            })
        };
        let id_tokens = id_tokens(&settings, &issuer, &clock)?;
        Ok(Self {
            logout_tokens: LogoutTokenVerifier::new(&id_tokens),
            id_tokens,
            metadata: MetadataCache::new(
                &settings.issuer,
                client(MAX_JWKS_BYTES)?,
                Arc::clone(&clock),
            ),
            client: client(MAX_RESPONSE_BYTES)?,
            settings,
            issuer,
            clock,
        })
    }

    async fn metadata(&self) -> Result<Arc<ProviderMetadata>, ProviderError> {
        Ok(self.metadata.get().await?)
    }

    fn endpoint(&self, url: &Url) -> Endpoint {
        let (own, client) = (self.settings.client.clone(), self.client.clone());
        Endpoint::new(url.clone(), own, client, Arc::clone(&self.clock))
    }

    /// Sends a token request once.
    async fn grant(&self, parameters: &[(&str, &str)]) -> Result<TokenResponse, ProviderError> {
        let metadata = self.metadata().await?;
        let endpoint = required(metadata.token_endpoint.as_ref(), "token_endpoint")?;
        let resources = self.settings.resources.iter();
        let mut parameters = parameters.to_vec();
        parameters.extend(resources.map(|resource| ("resource", resource.as_str())));
        Ok(self.endpoint(endpoint).grant(&parameters).await?)
    }

    /// When the access token of a new sign-in expires. A token that the issuer does not accept is
    /// refused here: otherwise the first request would send the user to sign in again, and so on.
    async fn check_access_token(&self, token: &BearerToken) -> Result<UnixMillis, ProviderError> {
        self.expiry(token).await.map_err(|error| match error {
            TokenError::KeysUnavailable { retry_after }
            | TokenError::IntrospectionUnavailable { retry_after } => ProviderError::Unavailable {
                cause: format!("the access token cannot be verified: {error}"),
                retry_after: Some(retry_after),
            },
            error @ (TokenError::ClockNotSet | TokenError::Internal) => {
                ProviderError::Misconfigured(error.to_string())
            }
            error => ProviderError::InvalidToken(format!(
                "the issuer {:?} does not accept the access token: {error}{}",
                self.issuer.name(),
                remedy(&error)
            )),
        })
    }

    /// `exp` of an access token that the issuer accepts.
    async fn expiry(&self, token: &BearerToken) -> Result<UnixMillis, TokenError> {
        let issuers = std::slice::from_ref(&self.issuer);
        match token::authenticate(token, issuers, None).await {
            Ok(authenticated) => match authenticated.caller {
                Caller::Verified(token) => Ok(token.expires_at()),
                // Not an issuer that verifies tokens.
                _ => Err(TokenError::UnknownIssuer),
            },
            Err(unauthenticated) => Err(unauthenticated.error),
        }
    }
}

#[async_trait]
impl IdentityProvider for OidcProvider {
    async fn endpoints(&self) -> Result<ProviderEndpoints, ProviderError> {
        let metadata = self.metadata().await?;
        let authorization = required(
            metadata.authorization_endpoint.as_ref(),
            "authorization_endpoint",
        )?;
        Ok(ProviderEndpoints {
            issuer: metadata.issuer.clone(),
            authorization: authorization.clone(),
            end_session: metadata.end_session_endpoint.clone(),
            iss_required: metadata.authorization_response_iss_parameter_supported,
        })
    }

    async fn redeem(&self, code: &AuthorizationCode) -> Result<ProviderGrant, ProviderError> {
        let parameters = [
            ("grant_type", "authorization_code"),
            ("code", code.code.expose()),
            ("redirect_uri", code.redirect_uri.as_str()),
            ("code_verifier", code.code_verifier.expose()),
        ];
        let response = self.grant(&parameters).await?;
        let id_token = response.id_token.ok_or_else(|| {
            let text = "the provider sent no ID token: the session's scopes must include openid";
            ProviderError::Misconfigured(text.to_owned())
        })?;
        let expected = Expected {
            nonce: Some(&code.nonce),
            access_token: Some(response.access_token.expose()),
            subject: None,
        };
        let user = self.id_tokens.verify(id_token.expose(), expected).await;
        let user = user.map_err(|error| invalid_id_token(&error))?;
        let access_token = bearer(&response.access_token)?;
        let expires_at = self.check_access_token(&access_token).await?;
        Ok(ProviderGrant {
            grant: SessionGrant::Oidc {
                access_token,
                access_token_expires_at: earliest(response.expires_at, Some(expires_at)),
                refresh_token: response.refresh_token.filter(is_present),
                id_token: Some(id_token),
            },
            subject: user.subject,
            name: user.name,
            email: user.email,
            provider_session: user.session,
        })
    }

    async fn refresh(
        &self,
        refresh_token: &SecretString,
        subject: &str,
    ) -> Result<ProviderGrant, ProviderError> {
        let parameters = [
            ("grant_type", "refresh_token"),
            ("refresh_token", refresh_token.expose()),
        ];
        let response = self.grant(&parameters).await?;
        let access_token = bearer(&response.access_token)?;
        let id_token = response.id_token;
        let expected = Expected {
            nonce: None,
            access_token: Some(access_token.expose()),
            subject: Some(subject),
        };
        let user = match &id_token {
            Some(id_token) => {
                let user = self.id_tokens.verify_renewal(id_token.expose(), expected);
                Some(user.await.map_err(|error| invalid_id_token(&error))?)
            }
            None => None,
        };
        // Whether the issuer accepts it is found out by the request that it is renewed for.
        let expires_at = self.expiry(&access_token).await.ok();
        let replaced = response.refresh_token.filter(is_present);
        let grant = SessionGrant::Oidc {
            access_token,
            access_token_expires_at: earliest(response.expires_at, expires_at),
            refresh_token: replaced.or_else(|| Some(refresh_token.clone())),
            id_token,
        };
        let (name, email, provider_session) = match user {
            Some(user) => (user.name, user.email, user.session),
            None => (None, None, None),
        };
        Ok(ProviderGrant {
            grant,
            subject: subject.to_owned(),
            name,
            email,
            provider_session,
        })
    }

    async fn revoke(&self, refresh_token: &SecretString) -> Result<(), ProviderError> {
        let metadata = self.metadata().await?;
        let Some(endpoint) = &metadata.revocation_endpoint else {
            return Ok(());
        };
        let parameters = [
            ("token", refresh_token.expose()),
            ("token_type_hint", "refresh_token"),
        ];
        self.endpoint(endpoint).send(&parameters).await?;
        Ok(())
    }

    async fn verify_logout_token(&self, token: &str) -> Result<LogoutToken, LogoutTokenError> {
        let verified = self.logout_tokens.verify(token).await;
        let claims = verified.map_err(|error| match error {
            token::LogoutTokenError::Token(TokenError::KeysUnavailable { retry_after }) => {
                LogoutTokenError::Unavailable {
                    cause: error.to_string(),
                    retry_after,
                }
            }
            error => LogoutTokenError::Invalid(error.to_string()),
        })?;
        Ok(LogoutToken {
            id: claims.id,
            issued_at: claims.issued_at,
            accepted_until: claims.accepted_until,
            subject: claims.subject,
            provider_session: claims.session,
        })
    }
}

impl From<MetadataUnavailable> for ProviderError {
    fn from(unavailable: MetadataUnavailable) -> Self {
        let cause = unavailable.cause.to_string();
        match unavailable.cause {
            MetadataDiscoveryError::Unavailable(..) => Self::Unavailable {
                cause,
                retry_after: Some(unavailable.retry_after),
            },
            MetadataDiscoveryError::Issuer(..) | MetadataDiscoveryError::Invalid(_) => {
                Self::Misconfigured(cause)
            }
        }
    }
}

/// The verifier of ID tokens, with the issuer's keys if it has any.
fn id_tokens(
    settings: &OidcProviderSettings,
    issuer: &Issuer,
    clock: &SharedClock,
) -> Result<IdTokenVerifier, TransportError> {
    let (url, client_id) = (&settings.issuer, &settings.client.id);
    if let Some(verifier) = IdTokenVerifier::sharing_keys(issuer, client_id) {
        return Ok(verifier);
    }
    let keys = DiscoveryFetcher::new(url, key_client(settings.ca.clone())?);
    let (keys, clock) = (Arc::new(keys), Arc::clone(clock));
    Ok(IdTokenVerifier::new(url, client_id, keys, clock))
}

fn required<'a>(endpoint: Option<&'a Url>, name: &str) -> Result<&'a Url, ProviderError> {
    endpoint.ok_or_else(|| {
        ProviderError::Misconfigured(format!("the provider's metadata has no {name}"))
    })
}

fn bearer(token: &SecretString) -> Result<BearerToken, ProviderError> {
    BearerToken::new(token.expose()).map_err(|error| {
        ProviderError::InvalidToken(format!("the access token cannot be used: {error}"))
    })
}

fn invalid_id_token(error: &IdTokenError) -> ProviderError {
    match error {
        IdTokenError::Token(TokenError::KeysUnavailable { retry_after }) => {
            ProviderError::Unavailable {
                cause: error.to_string(),
                retry_after: Some(*retry_after),
            }
        }
        IdTokenError::Token(TokenError::ClockNotSet | TokenError::Internal) => {
            ProviderError::Misconfigured(error.to_string())
        }
        _ => ProviderError::InvalidToken(error.to_string()),
    }
}

/// What the operator can do about an access token that is refused at sign-in.
fn remedy(error: &TokenError) -> &'static str {
    match error {
        TokenError::WrongAudience => {
            ": set the session's audience or resource to one of the issuer's audiences"
        }
        TokenError::Opaque | TokenError::Malformed | TokenError::Encrypted => {
            ": the provider issues opaque access tokens; set the session's audience or resource, or \
             use an issuer of kind introspection"
        }
        TokenError::WrongType
        | TokenError::IdToken
        | TokenError::RefreshToken
        | TokenError::LogoutToken
        | TokenError::NotAccessToken { .. } => ": check the issuer's profile",
        _ => "",
    }
}

fn earliest(stated: Option<UnixMillis>, claimed: Option<UnixMillis>) -> Option<UnixMillis> {
    match (stated, claimed) {
        (Some(stated), Some(claimed)) => Some(stated.min(claimed)),
        (stated, claimed) => stated.or(claimed),
    }
}

fn is_present(token: &SecretString) -> bool {
    !token.expose().is_empty()
}

#[cfg(test)]
mod tests;
