//! Reads a user's identities from Auth0's Management API, with an access token of hawkgate's
//! own client that is cached, refreshed and replaced like any other credential.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http::header::{ACCEPT, AUTHORIZATION};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::Value;
use url::Url;
use zeroize::Zeroizing;

use crate::circuit_breaker::Jitter;
use crate::clock::SharedClock;
use crate::credential::{
    CacheLimits, CachedSource, Credential, CredentialSource, FetchError, IdentityHasher, Issued,
    LeaseError, Leased, RandomnessError, Replacement, SourceOptions, SwapRequest,
};
use crate::peer_text;
use crate::remote::credential_source::unreachable;
use crate::remote::http_client::{HttpClient, HttpResponse};
use crate::remote::oauth::{Endpoint, OnBehalfOf, not_json};
use crate::remote::retry::overload_delay;
use crate::token::Caller;

/// The scopes of the API token: no more than needed, because the token cannot be revoked.
const SCOPES: [&str; 2] = ["read:users", "read:user_idp_tokens"];

/// The longest that an API token is used; tenants issue them for a day by default.
const TOKEN_MAX_AGE: Duration = Duration::from_hours(24);
/// How long before its expiry an API token is refreshed.
const TOKEN_REFRESH_AHEAD: Duration = Duration::from_mins(10);
/// How long a refusal of the client is cached.
const TOKEN_NEGATIVE_TTL: Duration = Duration::from_secs(10);

/// The longest user id that is looked up, in bytes.
const MAX_USER_ID: usize = 512;
/// The longest random addition to the delay after a 429, so that callers do not all retry at once.
const JITTER: Duration = Duration::from_secs(2);

/// A client of one tenant's Management API.
#[derive(Debug)]
pub(super) struct Management {
    tenant: Url,
    client: HttpClient,
    token: CachedSource,
    /// The cache key of the API token: a request without a caller.
    own_request: SwapRequest,
    jitter: Jitter,
    clock: SharedClock,
}

impl Management {
    pub(super) fn new(
        tenant: &Url,
        tokens: Endpoint,
        client: HttpClient,
        timeout: Duration,
        clock: SharedClock,
    ) -> Result<Self, RandomnessError> {
        let mut audience = tenant.clone();
        audience.set_path("/api/v2/");
        let grant = TokenGrant {
            tokens,
            audience: audience.into(),
        };
        let options = SourceOptions {
            limits: CacheLimits {
                max_entries: 1,
                max_bytes: 1 << 20,
                max_age: TOKEN_MAX_AGE,
                refresh_ahead: TOKEN_REFRESH_AHEAD,
                refusals: TOKEN_NEGATIVE_TTL,
            },
            timeout,
            concurrency: 1,
        };
        Ok(Self {
            tenant: tenant.clone(),
            client,
            token: CachedSource::new("management".into(), Arc::new(grant), options, clock.clone())?,
            own_request: SwapRequest {
                caller: Caller::Anonymous,
                bearer: None,
                scopes: None,
                clock_offset: 0,
            },
            jitter: Jitter::Random,
            clock,
        })
    }

    /// Fetches the user `id`. If the API token is rejected, it is replaced once.
    pub(super) async fn user(&self, id: &str) -> Result<HttpResponse, FetchError> {
        let url = user_url(&self.tenant, id)?;
        let leased = self.token.lease(&self.own_request).await;
        let leased = leased.map_err(|e| without_token(&e))?;
        let mut response = self.get(&url, &leased).await?;
        if response.status == StatusCode::UNAUTHORIZED {
            let replaced = self.token.replace(&self.own_request, &leased.lease).await;
            if let Replacement::New(leased) = replaced.map_err(|e| without_token(&e))? {
                response = self.get(&url, &leased).await?;
                if response.status != StatusCode::UNAUTHORIZED {
                    self.token.accepted(&self.own_request);
                }
            }
        }
        self.classify(response)
    }

    async fn get(&self, url: &Url, leased: &Leased) -> Result<HttpResponse, FetchError> {
        let Credential::Bearer(token) = leased.lease.credential() else {
            return Err(bad("Management API: the credential is not a token".into()));
        };
        let text = Zeroizing::new(format!("Bearer {}", token.expose()));
        let mut value = HeaderValue::from_str(&text)
            .map_err(|_| bad("Management API: the token is not allowed in a header".into()))?;
        value.set_sensitive(true);
        let mut headers = HeaderMap::with_capacity(2);
        headers.insert(AUTHORIZATION, value);
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        self.client.get(url, headers).await.map_err(unreachable)
    }

    fn classify(&self, response: HttpResponse) -> Result<HttpResponse, FetchError> {
        let status = response.status;
        if status == StatusCode::OK && response.is_json() {
            return Ok(response);
        }
        if status == StatusCode::OK {
            return Err(bad(format!("Management API: {}", not_json(&response))));
        }
        if status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error() {
            return Err(self.unavailable(&response));
        }
        let status_text = status_text(&response);
        Err(match (status, error_code(&response)) {
            (StatusCode::NOT_FOUND, _) => {
                FetchError::NotEntitled(format!("{status_text}: the tenant has no such user"))
            }
            // The caller's subject is the only variable part of the URL.
            (StatusCode::BAD_REQUEST, Some("invalid_uri")) => FetchError::NotEntitled(format!(
                "{status_text}: the token's subject is not a user of the tenant"
            )),
            (StatusCode::FORBIDDEN, _) => misconfigured(format!(
                "{status_text}: grant the client {} for the Management API",
                SCOPES.join(" and ")
            )),
            (StatusCode::UNAUTHORIZED, _) => misconfigured(format!(
                "{status_text}: the API rejects the token that the tenant has just issued for it"
            )),
            (status, _) if status.is_redirection() => {
                bad(format!("{status_text}: a redirect, which is not followed"))
            }
            _ => bad(status_text),
        })
    }

    fn unavailable(&self, response: &HttpResponse) -> FetchError {
        let wait = overload_delay(response, self.clock.now());
        FetchError::Unavailable {
            cause: status_text(response),
            retry_after: wait.map(|wait| wait.saturating_add(JITTER.mul_f64(self.jitter.share()))),
        }
    }
}

/// `/api/v2/users/{id}`, with every reserved character in the id escaped.
pub(super) fn user_url(tenant: &Url, id: &str) -> Result<Url, FetchError> {
    let unusable = || FetchError::NotEntitled("the token's subject cannot be a user id".into());
    if id.is_empty() || id.len() > MAX_USER_ID {
        return Err(unusable());
    }
    let path = format!("/api/v2/users/{}", escaped(id));
    let mut url = tenant.clone();
    url.set_path(&path);
    // The URL parser resolves dot segments, which would address another resource.
    if url.path() != path {
        return Err(unusable());
    }
    url.set_query(Some("fields=identities&include_fields=true"));
    Ok(url)
}

/// Percent-encodes everything except unreserved characters (RFC 3986 §2.3).
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len() * 3);
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(escaped, "%{byte:02X}");
        }
    }
    escaped
}

/// Status and `errorCode`, for operators.
fn status_text(response: &HttpResponse) -> String {
    let status = response.status.as_u16();
    match error_code(response) {
        Some(code) => format!("Management API: status {status} ({code})"),
        None => format!("Management API: status {status}"),
    }
}

/// The `errorCode`, if it has the shape of one. Messages are not used, because they may quote
/// anything.
fn error_code(response: &HttpResponse) -> Option<&'static str> {
    let body: Value = serde_json::from_slice(&response.body).ok()?;
    peer_text::error_code(body.get("errorCode")?.as_str()?)
}

fn misconfigured(cause: String) -> FetchError {
    FetchError::Misconfigured {
        cause,
        retry_after: None,
    }
}

fn bad(what: String) -> FetchError {
    FetchError::BadAnswer(what)
}

/// A failure to get the API token, which is never the caller's fault.
fn without_token(error: &LeaseError) -> FetchError {
    let cause = format!("token for the Management API: {}", error.cause);
    match error.cause {
        FetchError::Unavailable { retry_after, .. } => {
            FetchError::Unavailable { cause, retry_after }
        }
        FetchError::Misconfigured { retry_after, .. } => {
            FetchError::Misconfigured { cause, retry_after }
        }
        _ => bad(cause),
    }
}

/// Obtains the API token with the client credentials grant.
#[derive(Debug)]
struct TokenGrant {
    tokens: Endpoint,
    audience: String,
}

#[async_trait]
impl CredentialSource for TokenGrant {
    fn identity(&self, _: &SwapRequest, _: &mut IdentityHasher) -> Result<(), FetchError> {
        Ok(())
    }

    async fn fetch(&self, _: &SwapRequest) -> Result<Issued, FetchError> {
        let scope = SCOPES.join(" ");
        let parameters = [
            ("grant_type", "client_credentials"),
            ("audience", &self.audience),
            ("scope", &scope),
        ];
        let response = self.tokens.grant(&parameters).await;
        let response = response.map_err(|f| f.into_fetch_error(OnBehalfOf::Client))?;
        let granted = response.scope.as_deref();
        let missing = |required: &&&str| {
            granted.is_some_and(|granted| !granted.iter().any(|s| s == **required))
        };
        if let Some(scope) = SCOPES.iter().find(missing) {
            return Err(bad(format!(
                "the token lacks the scope {scope}: grant it to the client"
            )));
        }
        Ok(Issued {
            credential: Credential::Bearer(response.access_token),
            expires_at: response.expires_at,
            original: None,
        })
    }
}
