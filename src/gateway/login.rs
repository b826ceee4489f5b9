//! The oidcCredentials endpoint of the retired login service, served here (seed 000,
//! taskcluster.md §1): a bearer token in, named temporary credentials out.

mod cors;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode, header};
use serde::Serialize;
use zeroize::Zeroizing;

use super::rate::Rates;
use super::rejection::Rejection;
use super::rule::{Rules, Verdict};
use super::served::{Facts, Served};
use super::{Head, path, route};
use crate::clock::{SharedClock, UnixMillis};
use crate::credential::FetchError;
use crate::credential::taskcluster_mint::MintSource;
use crate::gateway::reason::Reason;
use crate::hawk::{Certificate, Credentials};
use crate::header_fields::HeaderFields;
use crate::token::{self, BearerToken, Caller, Issuer, TokenError, VerifiedToken};
pub use cors::{ANY_ORIGIN, AllowedOrigins};

/// What the endpoint is counted and logged as, in the place of a route's name.
pub const LABEL: &str = "login";

/// Below these, the last part of the path names an issuer: today's place, and the one that
/// the service had at `login.taskcluster.net`.
pub const PREFIXES: &[&str] = &["/api/login/v1/oidc-credentials/", "/v1/oidc-credentials/"];

/// How far before now a certificate's validity begins (taskcluster.md §1).
const BACKDATED: Duration = Duration::from_mins(15);

/// How much earlier than the certificate's the end is reported, so that clients ask anew
/// in time (taskcluster.md §1).
const REPORTED_EARLY: Duration = Duration::from_secs(30);

/// The endpoint.
#[derive(Debug)]
pub struct Login {
    /// Whose tokens are accepted, each below its own name.
    pub issuers: Vec<Arc<Issuer>>,
    /// Makes the credentials.
    pub minter: Arc<MintSource>,
    /// The minting source's configured name.
    pub source: Arc<str>,
    /// Scopes that the bearer must have.
    pub require_scopes: Vec<String>,
    /// Those that concern the endpoint; where there are any, one of them must let the
    /// caller pass. The headers that they set go nowhere.
    pub rules: Option<Rules>,
    /// Browser applications that may read the answers.
    pub allowed_origins: AllowedOrigins,
    /// How long the credentials are valid, at most; never past the token's `exp`.
    pub lifetime: Duration,
    /// For making them.
    pub timeout: Duration,
    /// How often one client may ask.
    pub rates: Rates,
    /// The clock in use.
    pub clock: SharedClock,
}

/// A request for the endpoint.
#[derive(Clone, Copy, Debug)]
pub struct LoginRequest<'a> {
    /// The provider asked for: an issuer's name, as sent.
    pub provider: &'a str,
    /// GET, or OPTIONS before it; of the headers only `Authorization`, `Origin` and, for
    /// rules, `User-Agent`.
    pub head: Head<'a>,
}

/// The provider that a request target names, if it is one of the endpoint's.
pub fn provider(target: &str) -> Option<&str> {
    let path = path::without_query(target);
    let name = PREFIXES.iter().find_map(|p| path.strip_prefix(p))?;
    (!name.is_empty() && !name.contains('/')).then_some(name)
}

/// The endpoint's answer (taskcluster.md §1).
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
    /// A string that holds JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate: Option<&'a str>,
}

impl Login {
    /// Answers a request. Every bad token, and an issuer that cannot be reached, is the
    /// same 400 to the caller; the log has the difference.
    pub async fn answer(&self, request: LoginRequest<'_>) -> Served {
        let now = self.clock.now();
        let mut facts = Facts {
            route: Some(LABEL.into()),
            ..Facts::default()
        };
        let served = match *request.head.method {
            Method::OPTIONS => Served::new(StatusCode::NO_CONTENT).header("allow", "GET, OPTIONS"),
            Method::GET => match self.credentials(request, now, &mut facts).await {
                Ok(body) => {
                    let mut served = Served::new(StatusCode::OK);
                    served.body = body;
                    served.header("content-type", "application/json")
                }
                Err(rejection) => Served::refusal(rejection, request.head.method, now),
            },
            _ => Served::refusal(Reason::MethodRefused.into(), request.head.method, now)
                .header("allow", "GET, OPTIONS"),
        };
        let origin = request.head.headers.first(&header::ORIGIN);
        let preflight = *request.head.method == Method::OPTIONS;
        let mut served = self.allowed_origins.permit(served, origin, preflight);
        served.facts = facts;
        served
    }

    /// Whether this request would be given credentials, were it a GET; makes none.
    ///
    /// # Errors
    /// With the refusal.
    pub async fn admits(&self, request: LoginRequest<'_>) -> Result<(), Rejection> {
        self.admit(request, &mut Facts::default()).await.map(drop)
    }

    /// Who calls, and the scopes that the rules leave them.
    async fn admit(
        &self,
        request: LoginRequest<'_>,
        facts: &mut Facts,
    ) -> Result<(Arc<VerifiedToken>, Option<Arc<[String]>>), Rejection> {
        let named = |issuer: &&Arc<Issuer>| **issuer.name() == *request.provider;
        let Some(issuer) = self.issuers.iter().find(named) else {
            return Err(Reason::LoginUnknownProvider.into());
        };
        let client = request.head.client();
        self.rates.arrived(client)?;
        let token = match verify(issuer, request.head.headers, facts).await {
            Ok(token) => token,
            Err(rejection) => {
                self.rates.unidentified(client)?;
                return Err(rejection);
            }
        };
        let caller = Caller::Verified(Arc::clone(&token));
        facts.caller = Some(caller.clone());
        self.rates.identified(&caller, client)?;
        if !self
            .require_scopes
            .iter()
            .all(|scope| token.scopes().contains(scope))
        {
            return Err(refused("the token lacks a scope of login.require_scopes"));
        }
        let scopes = self.judge(&caller, request.head, facts)?;
        Ok((token, scopes))
    }

    async fn credentials(
        &self,
        request: LoginRequest<'_>,
        now: UnixMillis,
        facts: &mut Facts,
    ) -> Result<Zeroizing<Vec<u8>>, Rejection> {
        let (token, scopes) = self.admit(request, facts).await?;
        facts.scopes.clone_from(&scopes);
        let expiry = now.plus(self.lifetime).min(token.expires_at());
        let caller = Caller::Verified(token);
        facts.source = Some(Arc::clone(&self.source));
        let start = now.minus(BACKDATED);
        let minting = self.minter.issue(&caller, scopes.as_deref(), start, expiry);
        let minted = tokio::time::timeout(self.timeout, minting).await;
        let credentials = minted
            .unwrap_or_else(|_| Err(FetchError::BadAnswer("minting took too long".into())))
            .map_err(|error| not_minted(&error))?;
        facts.credential = Some(credentials.client_id.clone());
        written(&credentials, expiry.minus(REPORTED_EARLY))
    }

    /// To which scopes the rules narrow what the caller is given, if they do.
    fn judge(
        &self,
        caller: &Caller,
        head: Head<'_>,
        facts: &mut Facts,
    ) -> Result<Option<Arc<[String]>>, Rejection> {
        let Some(rules) = &self.rules else {
            return Ok(None);
        };
        let host = route::host_name(head.host);
        let ruling = rules.decide(caller, head.facts(&host));
        facts.rule.clone_from(&ruling.rule);
        match &ruling.verdict {
            Verdict::Allow { scopes, .. } => Ok(scopes.clone()),
            Verdict::Deny { reason, cause } if *reason == Reason::Internal => {
                Err(Rejection::from(*reason).because(cause.clone()))
            }
            Verdict::Deny { cause, .. } => Err(refused(cause.clone())),
        }
    }
}

/// The caller's token, if it is good and of `issuer`.
async fn verify(
    issuer: &Arc<Issuer>,
    headers: &dyn HeaderFields,
    facts: &mut Facts,
) -> Result<Arc<VerifiedToken>, Rejection> {
    let bearer = match BearerToken::from_headers(headers) {
        Ok(Some(bearer)) => bearer,
        Ok(None) => return Err(refused("no bearer token was sent")),
        Err(error) => return Err(refused(error.to_string())),
    };
    match token::authenticate(&bearer, std::slice::from_ref(issuer)).await {
        Ok(authenticated) => {
            facts.issuer = Some(Arc::clone(issuer.name()));
            facts.verification = authenticated.how;
            match authenticated.caller {
                Caller::Verified(token) => Ok(token),
                // The configuration refuses such issuers here.
                Caller::Delegated { .. } | Caller::Password { .. } | Caller::Anonymous => {
                    Err(refused("nobody has verified the token"))
                }
            }
        }
        Err(unauthenticated) => {
            facts.issuer = unauthenticated.issuer;
            facts.verification = Some(unauthenticated.error.label());
            if unauthenticated.error == TokenError::Internal {
                return Err(Reason::Internal.into());
            }
            Err(refused(unauthenticated.error.to_string()))
        }
    }
}

fn refused(cause: impl Into<String>) -> Rejection {
    Rejection::from(Reason::LoginRefused).because(cause)
}

/// A caller who cannot be named has the wrong token; anything else is a fault here.
fn not_minted(error: &FetchError) -> Rejection {
    match error {
        FetchError::NotEntitled(_) | FetchError::Refused(_) => refused(error.to_string()),
        _ => Rejection::from(Reason::Internal).because(error.to_string()),
    }
}

fn written(
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
    // Room for all of it, were every character escaped: growing would leave copies behind.
    let room = 1024 + 2 * (credentials.client_id.len() + certificate.map_or(0, str::len));
    let mut json = Zeroizing::new(Vec::with_capacity(room));
    serde_json::to_writer(&mut *json, &body)
        .map_err(|_| Rejection::from(Reason::Internal).because("the answer cannot be written"))?;
    Ok(json)
}
