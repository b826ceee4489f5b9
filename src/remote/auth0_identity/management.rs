//! Auth0's Management API, as far as it is needed: one user's identities, asked for with a
//! token of hawkgate's own that is kept, renewed and replaced like any other credential.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http::header::{ACCEPT, AUTHORIZATION};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::Value;
use url::Url;
use zeroize::Zeroizing;

use crate::clock::SharedClock;
use crate::credential::{
    CacheLimits, Credential, CredentialSource, FetchError, IdentityHasher, Issued, Jitter,
    LeaseError, Leased, RandomnessError, Source, SourceOptions, SwapRequest,
};
use crate::remote::http_client::{HttpClient, HttpResponse};
use crate::remote::oauth::{About, Endpoint, limit_reset};
use crate::remote::taskcluster_exchange::unreachable;
use crate::token::Caller;

/// What the token is for, and nothing more: it cannot be revoked.
const SCOPES: [&str; 2] = ["read:users", "read:user_idp_tokens"];

/// How long the API's own token is used at most; a day is what tenants give.
const TOKEN_LIFE: Duration = Duration::from_hours(24);
/// So long before its end a new one is fetched.
const TOKEN_AHEAD: Duration = Duration::from_mins(10);
/// A refused client is not tried again before.
const TOKEN_REFUSALS: Duration = Duration::from_secs(10);

/// The longest user id that is asked for, in bytes.
const MAX_USER_ID: usize = 512;
/// The longest `errorCode` repeated in logs, in characters.
const MAX_CODE: usize = 48;
/// The most that is added to the wait that a limit asks for: not all come back at once.
const JITTER: Duration = Duration::from_secs(2);

/// One tenant's Management API.
#[derive(Debug)]
pub(super) struct Management {
    tenant: Url,
    client: HttpClient,
    token: Source,
    /// Whose token that is: nobody's but hawkgate's.
    ourselves: SwapRequest,
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
                max_age: TOKEN_LIFE,
                refresh_ahead: TOKEN_AHEAD,
                refusals: TOKEN_REFUSALS,
            },
            timeout,
            concurrency: 1,
        };
        Ok(Self {
            tenant: tenant.clone(),
            client,
            token: Source::new("management".into(), Arc::new(grant), options, clock.clone())?,
            ourselves: SwapRequest {
                caller: Caller::Anonymous,
                bearer: None,
                scopes: None,
                clock_offset: 0,
            },
            jitter: Jitter::Random,
            clock,
        })
    }

    /// The 200 answer about the user called `id`. A token that the API does not accept is
    /// replaced, once.
    pub(super) async fn user(&self, id: &str) -> Result<HttpResponse, FetchError> {
        let url = user_url(&self.tenant, id)?;
        let leased = self.token.lease(&self.ourselves).await;
        let leased = leased.map_err(|e| without_token(&e))?;
        let mut answer = self.ask(&url, &leased).await?;
        if answer.status == StatusCode::UNAUTHORIZED {
            let leased = self.token.replace(&self.ourselves, &leased.lease).await;
            let leased = leased.map_err(|e| without_token(&e))?;
            answer = self.ask(&url, &leased).await?;
        }
        self.judge(answer)
    }

    async fn ask(&self, url: &Url, leased: &Leased) -> Result<HttpResponse, FetchError> {
        let Credential::Bearer(token) = leased.lease.credential() else {
            return Err(bad("Management API: its token is none".into()));
        };
        let text = Zeroizing::new(format!("Bearer {}", token.expose()));
        let mut value = HeaderValue::from_str(&text)
            .map_err(|_| bad("Management API: its token is unusable".into()))?;
        value.set_sensitive(true);
        let mut headers = HeaderMap::with_capacity(2);
        headers.insert(AUTHORIZATION, value);
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        self.client.get(url, headers).await.map_err(unreachable)
    }

    fn judge(&self, answer: HttpResponse) -> Result<HttpResponse, FetchError> {
        let status = answer.status;
        if status == StatusCode::OK && answer.is_json() {
            return Ok(answer);
        }
        if status == StatusCode::OK {
            return Err(bad("Management API: the answer is not JSON".into()));
        }
        if status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error() {
            return Err(self.unavailable(&answer));
        }
        let said = said(&answer);
        Err(match (status, error_code(&answer).as_deref()) {
            (StatusCode::NOT_FOUND, _) => {
                FetchError::NotEntitled(format!("{said}: the tenant has no such user"))
            }
            // The subject is all that differs from caller to caller.
            (StatusCode::BAD_REQUEST, Some("invalid_uri")) => FetchError::NotEntitled(format!(
                "{said}: the token's subject is no user of the tenant"
            )),
            (StatusCode::FORBIDDEN, _) => bad(format!(
                "{said}: grant the client {} for the Management API",
                SCOPES.join(" and ")
            )),
            (StatusCode::UNAUTHORIZED, _) => bad(format!(
                "{said}: it does not accept the token that the tenant just gave for it"
            )),
            (status, _) if status.is_redirection() => {
                bad(format!("{said}: a redirect, which is not followed"))
            }
            _ => bad(said),
        })
    }

    fn unavailable(&self, answer: &HttpResponse) -> FetchError {
        let wait = answer
            .retry_after()
            .or_else(|| limit_reset(answer, self.clock.now()));
        FetchError::Unavailable {
            cause: said(answer),
            retry_after: wait.map(|wait| wait.saturating_add(JITTER.mul_f64(self.jitter.share()))),
        }
    }
}

/// `/api/v2/users/{id}` with everything in the id escaped that could mean something else in
/// a path.
pub(super) fn user_url(tenant: &Url, id: &str) -> Result<Url, FetchError> {
    let unusable = || FetchError::NotEntitled("the token's subject cannot be a user's id".into());
    if id.is_empty() || id.len() > MAX_USER_ID {
        return Err(unusable());
    }
    let path = format!("/api/v2/users/{}", escaped(id));
    let mut url = tenant.clone();
    url.set_path(&path);
    // A dot segment would be resolved: another resource.
    if url.path() != path {
        return Err(unusable());
    }
    url.set_query(Some("fields=identities&include_fields=true"));
    Ok(url)
}

/// RFC 3986 §2.3: only unreserved characters stay.
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
fn said(answer: &HttpResponse) -> String {
    let status = answer.status.as_u16();
    match error_code(answer) {
        Some(code) => format!("Management API: status {status} ({code})"),
        None => format!("Management API: status {status}"),
    }
}

/// `errorCode` of an error, if it is a plain word. Messages may quote anything.
fn error_code(answer: &HttpResponse) -> Option<String> {
    let body: Value = serde_json::from_slice(&answer.body).ok()?;
    let code = body.get("errorCode")?.as_str()?;
    let plain = |b: u8| b.is_ascii_lowercase() || b == b'_';
    let fits = (1..=MAX_CODE).contains(&code.len()) && code.bytes().all(plain);
    fits.then(|| code.to_owned())
}

fn bad(what: String) -> FetchError {
    FetchError::BadAnswer(what)
}

/// Without a token of its own hawkgate can ask nothing; that is never the caller's fault.
fn without_token(error: &LeaseError) -> FetchError {
    let cause = format!("token for the Management API: {}", error.cause);
    match error.cause {
        FetchError::Unavailable { retry_after, .. } => {
            FetchError::Unavailable { cause, retry_after }
        }
        _ => bad(cause),
    }
}

/// hawkgate's own token for the API, by client credentials.
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
        let granted = self.tokens.grant(&parameters).await;
        let granted = granted.map_err(|f| f.into_fetch_error(About::Ourselves))?;
        let all = granted.scope.as_deref();
        let lacking = |wanted: &&&str| all.is_some_and(|all| !all.iter().any(|s| s == **wanted));
        if let Some(scope) = SCOPES.iter().find(lacking) {
            return Err(bad(format!("it lacks {scope}: grant that to the client")));
        }
        Ok(Issued {
            credential: Credential::Bearer(granted.access_token),
            expires_at: granted.expires_at,
        })
    }
}
