//! Shared by the sources `taskcluster-login` and `taskcluster-oauth`, and by sign-in at a
//! deployment: presents the bearer token, and parses the credentials or classifies the error
//! (`docs/design/taskcluster.md`, "Login endpoint: oidcCredentials" and "OAuth2 login").

use http::header::{ACCEPT, AUTHORIZATION};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::Deserialize;
use serde_json::Value;
use url::Url;
use zeroize::Zeroizing;

use super::credential_source::{bearer, unreachable};
use super::http_client::{HttpClient, HttpResponse};
use super::oauth::not_json;
use super::retry::overload_delay;
use crate::clock::UnixMillis;
use crate::credential::{Credential, FetchError, Issued, SwapRequest};
use crate::hawk::certificate::{Certificate, CertificateError};
use crate::hawk::{Credentials, HawkError, scope};
use crate::peer_text::{names_token, taskcluster_error_code};
use crate::secret::SecretString;
use crate::token::BearerToken;

/// The largest response accepted, in bytes; a certificate with a hundred scopes takes
/// 10 KiB.
pub const MAX_RESPONSE_BYTES: usize = 64 * 1024;

/// Fetches credentials from `url` with the caller's token. `refusal` is the status that, with
/// the code `InputError`, means that this endpoint rejected the token.
pub(super) async fn exchange(
    client: &HttpClient,
    url: &Url,
    request: &SwapRequest,
    refusal: StatusCode,
    now: UnixMillis,
) -> Result<Issued, FetchError> {
    let issued = present(client, url, bearer(request)?, refusal, now).await?;
    let certificate = issued.credentials.certificate.as_ref();
    let certified = certificate.and_then(Certificate::scopes);
    let narrowed = request.scopes.as_deref();
    let narrowed = narrowed.map(|scopes| scope::narrow(certified.as_deref(), scopes));
    let credentials = Credentials {
        authorized_scopes: narrowed,
        ..issued.credentials
    };
    Ok(Issued {
        credential: credential(&credentials)?,
        expires_at: Some(issued.expires_at),
        original: Some(credentials),
    })
}

/// Credentials as a deployment issues them.
pub(super) struct IssuedCredentials {
    /// Without `authorizedScopes`.
    pub(super) credentials: Credentials,
    /// When they expire, by the local clock.
    pub(super) expires_at: UnixMillis,
}

/// Presents `bearer` at `url`; see [`exchange`].
pub(super) async fn present(
    client: &HttpClient,
    url: &Url,
    bearer: &BearerToken,
    refusal: StatusCode,
    now: UnixMillis,
) -> Result<IssuedCredentials, FetchError> {
    let response = client
        .get(url, headers(bearer)?)
        .await
        .map_err(unreachable)?;
    if response.status == StatusCode::OK {
        return refuse_echo(issued(&response, now)?, bearer);
    }
    let kind = kind(&response);
    let status = response.status.as_u16();
    let text = match kind {
        Some(kind) => format!("status {status} ({kind})"),
        None => format!("status {status}"),
    };
    Err(match response.status {
        status if status == refusal && kind == Some("InputError") => FetchError::Refused(text),
        StatusCode::TOO_MANY_REQUESTS => unavailable(text, &response, now),
        status if status.is_server_error() => unavailable(text, &response, now),
        _ => FetchError::BadAnswer(text),
    })
}

fn headers(bearer: &BearerToken) -> Result<HeaderMap, FetchError> {
    // The scheme is case-sensitive at `/login/oauth/credentials`.
    let text = Zeroizing::new(format!("Bearer {}", bearer.expose()));
    let mut value = HeaderValue::from_str(&text)
        .map_err(|_| FetchError::Refused("the token is not allowed in a header".into()))?;
    value.set_sensitive(true);
    let mut headers = HeaderMap::with_capacity(2);
    headers.insert(AUTHORIZATION, value);
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    Ok(headers)
}

fn unavailable(cause: String, response: &HttpResponse, now: UnixMillis) -> FetchError {
    FetchError::Unavailable {
        cause,
        retry_after: overload_delay(response, now),
    }
}

/// The error's `code` (API services) or `name` (web-server), if it is one of Taskcluster's. Nothing
/// else of an error body is quoted, because it may quote the request.
fn kind(response: &HttpResponse) -> Option<&'static str> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Body {
        code: Value,
        name: Value,
    }
    let body: Body = serde_json::from_slice(&response.body).unwrap_or_default();
    let texts = [&body.code, &body.name].map(Value::as_str);
    let mut kinds = texts.into_iter().flatten().map(taskcluster_error_code);
    let first = kinds.next()?;
    // The same word may be in an API service's `code` or in web-server's `name`.
    Some(kinds.find(|kind| *kind == "InputError").unwrap_or(first))
}

#[derive(Deserialize)]
struct ExchangeResponse {
    expires: String,
    credentials: ResponseCredentials,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ResponseCredentials {
    client_id: String,
    access_token: String,
    #[serde(default)]
    certificate: Option<Value>,
}

/// The credentials in a 200 response received at `now`, with or without a certificate.
fn issued(response: &HttpResponse, now: UnixMillis) -> Result<IssuedCredentials, FetchError> {
    if !response.is_json() {
        return Err(bad(&not_json(response)));
    }
    // serde's own message may quote the body.
    let body: ExchangeResponse = serde_json::from_slice(&response.body)
        .map_err(|_| bad("the response does not have the shape {expires, credentials}"))?;
    let expires: jiff::Timestamp = body
        .expires
        .parse()
        .map_err(|_| bad("`expires` is not an ISO 8601 time"))?;
    let expires = UnixMillis(expires.as_millisecond());
    Ok(IssuedCredentials {
        credentials: credentials(body.credentials)?,
        expires_at: in_local_time(expires, response.date(), now),
    })
}

/// Refuses a clientId in which the caller's token is repeated, because clientIds are logged.
fn refuse_echo(
    issued: IssuedCredentials,
    token: &BearerToken,
) -> Result<IssuedCredentials, FetchError> {
    if names_token(&issued.credentials.client_id, token.expose()) {
        return Err(bad("the clientId contains the token"));
    }
    Ok(issued)
}

/// Corrects for clock skew, which must neither shorten nor extend the lifetime: the remaining
/// time is measured from the response's own `Date`.
fn in_local_time(expires: UnixMillis, date: Option<UnixMillis>, now: UnixMillis) -> UnixMillis {
    match date {
        Some(date) => now.offset_by(expires.0.saturating_sub(date.0)),
        None => expires,
    }
}

fn credentials(response: ResponseCredentials) -> Result<Credentials, FetchError> {
    let certificate = match &response.certificate {
        None | Some(Value::Null) => None,
        // Go programs encode a missing certificate like this.
        Some(Value::String(text)) if text.is_empty() => None,
        Some(value) => Some(Certificate::from_value(value).map_err(|e| match e {
            CertificateError::TooLarge => FetchError::TooLarge(e.to_string()),
            _ => FetchError::BadAnswer(e.to_string()),
        })?),
    };
    Ok(Credentials {
        authorized_scopes: None,
        client_id: response.client_id,
        access_token: SecretString::new(response.access_token),
        certificate,
    })
}

/// Prepares `credentials` for signing.
pub(super) fn credential(credentials: &Credentials) -> Result<Credential, FetchError> {
    Credential::taskcluster(credentials).map_err(|e| match e {
        HawkError::TooLong { .. } => FetchError::TooLarge(e.to_string()),
        other => FetchError::BadAnswer(other.to_string()),
    })
}

fn bad(what: &str) -> FetchError {
    FetchError::BadAnswer(what.to_owned())
}

#[cfg(test)]
mod tests;
