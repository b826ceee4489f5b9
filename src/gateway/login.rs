//! The `oidcCredentials` endpoint of Taskcluster's retired login service: exchanges a bearer token
//! for named temporary credentials (`docs/design/taskcluster.md`, "Login endpoint:
//! oidcCredentials").

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};
use serde::Serialize;
use zeroize::Zeroizing;

use super::cors::CorsPolicy;
use super::local_response::{LocalResponse, RequestDetails};
use super::rate_limit::RateLimiters;
use super::rejection::Rejection;
use super::rule::{Rules, Verdict};
use super::{Head, host, path};
use crate::clock::{SharedClock, UnixMillis};
use crate::credential::FetchError;
use crate::credential::taskcluster_mint::MintSource;
use crate::gateway::reason::Reason;
use crate::hawk::{Certificate, Credentials};
use crate::token::{self, BearerToken, Caller, Issuer, TokenError, VerifiedToken};

/// The value of the `route` label and log field for the endpoint.
pub const LABEL: &str = "login";

/// The path prefixes of the endpoint, followed by the name of an issuer: the current one, and the
/// one used at `login.taskcluster.net`.
pub const PREFIXES: &[&str] = &["/api/login/v1/oidc-credentials/", "/v1/oidc-credentials/"];

/// How far a certificate's `start` is backdated, as in the original service.
const BACKDATE: Duration = Duration::from_mins(15);

/// How much earlier the reported expiry is than the certificate's, as in the original service, so
/// that clients renew in time.
const EXPIRES_EARLY: Duration = Duration::from_secs(30);

/// The `[login]` endpoint.
#[derive(Debug)]
pub struct Login {
    /// The issuers whose tokens are accepted; the path names one of them.
    pub issuers: Vec<Arc<Issuer>>,
    /// Mints the credentials.
    pub minter: Arc<MintSource>,
    /// The minting source's configured name.
    pub source: Arc<str>,
    /// Scopes that the token must have.
    pub require_scopes: Vec<String>,
    /// The rules that apply to the endpoint, if any. Headers that they set are ignored.
    pub rules: Option<Rules>,
    /// Which browser applications may read responses; none of other origins if `None`.
    pub cors: Option<Arc<CorsPolicy>>,
    /// Maximum lifetime of the credentials, which never outlive the token.
    pub lifetime: Duration,
    /// Time limit for minting.
    pub timeout: Duration,
    /// The rate limits.
    pub rates: RateLimiters,
    /// The longest token accepted, in bytes.
    pub max_token_bytes: usize,
    /// The clock.
    pub clock: SharedClock,
}

/// A request to the endpoint.
#[derive(Clone, Copy, Debug)]
pub struct LoginRequest<'a> {
    /// The provider in the path, as sent: the name of an issuer.
    pub provider: &'a str,
    /// The head. Only `Authorization`, `Origin` and, for rules, `User-Agent` are read.
    pub head: Head<'a>,
}

/// The provider named in a request target; `None` if the target is not the endpoint.
pub fn provider(target: &str) -> Option<&str> {
    let path = path::without_query(target);
    let name = PREFIXES.iter().find_map(|p| path.strip_prefix(p))?;
    (!name.is_empty() && !name.contains('/')).then_some(name)
}

/// The response body.
#[derive(Serialize)]
struct Body<'a> {
    expires: String,
    credentials: BodyCredentials<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct BodyCredentials<'a> {
    client_id: &'a str,
    access_token: &'a str,
    /// A JSON document as a string.
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate: Option<&'a str>,
}

impl Login {
    /// Handles a request. As in the original service, the caller gets the same 400 for every bad
    /// token and for an unreachable issuer; the cause is only logged.
    pub async fn respond(&self, request: LoginRequest<'_>) -> LocalResponse {
        let now = self.clock.now();
        let mut details = RequestDetails {
            route: Some(LABEL.into()),
            ..RequestDetails::default()
        };
        let response = match *request.head.method {
            Method::OPTIONS => {
                LocalResponse::new(StatusCode::NO_CONTENT).header("allow", "GET, OPTIONS")
            }
            Method::GET => match self.credentials(request, now, &mut details).await {
                Ok(body) => {
                    let mut response = LocalResponse::new(StatusCode::OK);
                    response.body = body;
                    response.header("content-type", "application/json")
                }
                Err(rejection) => LocalResponse::refusal(rejection, request.head.method, now),
            },
            _ => LocalResponse::refusal(Reason::MethodRefused.into(), request.head.method, now)
                .header("allow", "GET, OPTIONS"),
        };
        let mut response = self.add_cors_fields(response, request.head);
        response.details = details;
        response
    }

    /// Adds the fields that let a page read the response. Every OPTIONS is answered like a preflight,
    /// and alike, so the response varies by origin alone.
    fn add_cors_fields(&self, mut response: LocalResponse, head: Head<'_>) -> LocalResponse {
        let Some(cors) = &self.cors else {
            return response;
        };
        let grant = cors.grant(head.headers);
        response = response.header("vary", "Origin");
        if *head.method == Method::OPTIONS {
            return grant.add_preflight_fields(response, head.headers);
        }
        for (name, value) in grant.fields() {
            response = response.header(name, value);
        }
        response
    }

    /// Checks whether a GET would get credentials, without minting any.
    ///
    /// # Errors
    /// If it would be refused.
    pub async fn authorize(&self, request: LoginRequest<'_>) -> Result<(), Rejection> {
        self.admit(request, &mut RequestDetails::default())
            .await
            .map(drop)
    }

    /// Authenticates and authorizes the caller. Returns the token and the scopes that rules limit
    /// the credentials to.
    async fn admit(
        &self,
        request: LoginRequest<'_>,
        details: &mut RequestDetails,
    ) -> Result<(Arc<VerifiedToken>, Option<Arc<[String]>>), Rejection> {
        let named = |issuer: &&Arc<Issuer>| **issuer.name() == *request.provider;
        let Some(issuer) = self.issuers.iter().find(named) else {
            return Err(Reason::LoginUnknownProvider.into());
        };
        let client = request.head.client();
        if let Some(wait) = self.rates.check_address(client)? {
            wait.await?;
        }
        let token = match verify(issuer, request.head, self.max_token_bytes, details).await {
            Ok(token) => token,
            Err(rejection) => {
                if let Some(wait) = self.rates.check_unverified(client)? {
                    wait.await?;
                }
                return Err(rejection);
            }
        };
        let caller = Caller::Verified(Arc::clone(&token));
        details.caller = Some(caller.clone());
        if let Some(wait) = self.rates.check_identity(&caller, client)? {
            wait.await?;
        }
        if !self
            .require_scopes
            .iter()
            .all(|scope| token.scopes().contains(scope))
        {
            return Err(login_refused(
                "the token lacks a scope in login.require_scopes",
            ));
        }
        let scopes = self.evaluate_rules(&caller, request.head, details)?;
        Ok((token, scopes))
    }

    async fn credentials(
        &self,
        request: LoginRequest<'_>,
        now: UnixMillis,
        details: &mut RequestDetails,
    ) -> Result<Zeroizing<Vec<u8>>, Rejection> {
        let (token, scopes) = self.admit(request, details).await?;
        details.scopes.clone_from(&scopes);
        let expiry = now.plus(self.lifetime).min(token.expires_at());
        let caller = Caller::Verified(token);
        details.source = Some(Arc::clone(&self.source));
        let start = now.minus(BACKDATE);
        let minting = self.minter.issue(&caller, scopes.as_deref(), start, expiry);
        let minted = tokio::time::timeout(self.timeout, minting).await;
        let credentials = minted
            .unwrap_or_else(|_| Err(FetchError::BadAnswer("minting timed out".into())))
            .map_err(|error| minting_failure(&error))?;
        details.credential = Some(credentials.client_id.clone());
        encode_body(&credentials, expiry.minus(EXPIRES_EARLY))
    }

    /// Evaluates the rules. Returns the scopes that they limit the credentials to, if any.
    fn evaluate_rules(
        &self,
        caller: &Caller,
        head: Head<'_>,
        details: &mut RequestDetails,
    ) -> Result<Option<Arc<[String]>>, Rejection> {
        let Some(rules) = &self.rules else {
            return Ok(None);
        };
        let host = host::host_name(head.host);
        let decision = rules.decide(caller, head.attributes(&host));
        details.rule.clone_from(&decision.rule);
        match &decision.verdict {
            Verdict::Allow { scopes, .. } => Ok(scopes.clone()),
            Verdict::Deny { reason, cause } if *reason == Reason::Internal => {
                Err(Rejection::from(*reason).with_cause(cause.clone()))
            }
            Verdict::Deny { cause, .. } => Err(login_refused(cause.clone())),
        }
    }
}

/// Verifies the caller's token of at most `max_bytes`, which must be from `issuer`.
async fn verify(
    issuer: &Arc<Issuer>,
    head: Head<'_>,
    max_bytes: usize,
    details: &mut RequestDetails,
) -> Result<Arc<VerifiedToken>, Rejection> {
    let bearer = match BearerToken::from_headers(head.headers, max_bytes) {
        Ok(Some(bearer)) => bearer,
        Ok(None) => return Err(login_refused("no bearer token was sent")),
        Err(error) => return Err(login_refused(error.to_string())),
    };
    match token::authenticate(&bearer, std::slice::from_ref(issuer), head.peer).await {
        Ok(authenticated) => {
            details.issuer = Some(Arc::clone(issuer.name()));
            details.verification = authenticated.verification;
            match authenticated.caller {
                Caller::Verified(token) => Ok(token),
                // The configuration does not allow such issuers for this endpoint.
                Caller::Client(_)
                | Caller::Delegated { .. }
                | Caller::Password { .. }
                | Caller::Anonymous => Err(login_refused("the token cannot be verified here")),
            }
        }
        Err(unauthenticated) => {
            details.issuer.clone_from(&unauthenticated.issuer);
            details.verification = Some(unauthenticated.error.label());
            if unauthenticated.error == TokenError::Internal {
                return Err(Reason::Internal.into());
            }
            Err(login_refused(unauthenticated.to_string()))
        }
    }
}

fn login_refused(cause: impl Into<String>) -> Rejection {
    Rejection::from(Reason::LoginRefused).with_cause(cause)
}

/// A token that yields no client name is refused; any other failure is an internal error.
fn minting_failure(error: &FetchError) -> Rejection {
    match error {
        FetchError::NotEntitled(_) | FetchError::Refused(_) => login_refused(error.to_string()),
        _ => Rejection::from(Reason::Internal).with_cause(error.to_string()),
    }
}

fn encode_body(
    credentials: &Credentials,
    expires: UnixMillis,
) -> Result<Zeroizing<Vec<u8>>, Rejection> {
    let certificate = credentials.certificate.as_ref().map(Certificate::as_json);
    let body = Body {
        expires: expires.to_rfc3339(),
        credentials: BodyCredentials {
            client_id: &credentials.client_id,
            access_token: credentials.access_token.expose(),
            certificate,
        },
    };
    // Large enough even if every character is escaped: reallocating would leave copies of the
    // secret in memory.
    let capacity = 1024 + 2 * (credentials.client_id.len() + certificate.map_or(0, str::len));
    let mut json = Zeroizing::new(Vec::with_capacity(capacity));
    serde_json::to_writer(&mut *json, &body).map_err(|_| {
        Rejection::from(Reason::Internal).with_cause("the response cannot be serialised")
    })?;
    Ok(json)
}
