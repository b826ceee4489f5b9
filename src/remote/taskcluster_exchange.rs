//! Shared by the sources `taskcluster-login` and `taskcluster-oauth`: presents the bearer token,
//! and parses the credentials or classifies the error (`docs/design/taskcluster.md`, "Login
//! endpoint: oidcCredentials" and "OAuth2 login").

use http::header::{ACCEPT, AUTHORIZATION};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::Deserialize;
use serde_json::Value;
use url::Url;
use zeroize::Zeroizing;

use super::credential_source::{bearer, unreachable};
use super::http_client::{HttpClient, HttpResponse};
use super::retry::overload_delay;
use crate::clock::UnixMillis;
use crate::credential::{Credential, FetchError, Issued, SwapRequest};
use crate::hawk::certificate::{Certificate, CertificateError};
use crate::hawk::{Credentials, HawkError, Signer, scope};
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
    let headers = headers(bearer(request)?)?;
    let response = client.get(url, headers).await.map_err(unreachable)?;
    if response.status == StatusCode::OK {
        let issued = issued(&response, request.scopes.as_deref(), now)?;
        return refuse_echo(issued, bearer(request)?);
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

/// The credentials in a 200 response received at `now`, with or without a certificate, narrowed
/// to `authorized_scopes`.
fn issued(
    response: &HttpResponse,
    authorized_scopes: Option<&[String]>,
    now: UnixMillis,
) -> Result<Issued, FetchError> {
    if !response.is_json() {
        return Err(bad("the response is not JSON"));
    }
    // serde's own message may quote the body.
    let body: ExchangeResponse = serde_json::from_slice(&response.body)
        .map_err(|_| bad("the response does not have the shape {expires, credentials}"))?;
    let expires: jiff::Timestamp = body
        .expires
        .parse()
        .map_err(|_| bad("`expires` is not an ISO 8601 time"))?;
    let expires = UnixMillis(expires.as_millisecond());
    Ok(Issued {
        credential: credential(body.credentials, authorized_scopes)?,
        expires_at: Some(in_local_time(expires, response.date(), now)),
    })
}

/// Refuses a clientId in which the caller's token is repeated, because clientIds are logged.
fn refuse_echo(issued: Issued, token: &BearerToken) -> Result<Issued, FetchError> {
    match &issued.credential {
        Credential::Taskcluster { client_id, .. } if names_token(client_id, token.expose()) => {
            Err(bad("the clientId contains the token"))
        }
        _ => Ok(issued),
    }
}

/// Corrects for clock skew, which must neither shorten nor extend the lifetime: the remaining
/// time is measured from the response's own `Date`.
fn in_local_time(expires: UnixMillis, date: Option<UnixMillis>, now: UnixMillis) -> UnixMillis {
    match date {
        Some(date) => now.offset_by(expires.0.saturating_sub(date.0)),
        None => expires,
    }
}

fn credential(
    response: ResponseCredentials,
    authorized_scopes: Option<&[String]>,
) -> Result<Credential, FetchError> {
    let certificate = match &response.certificate {
        None | Some(Value::Null) => None,
        // Go programs encode a missing certificate like this.
        Some(Value::String(text)) if text.is_empty() => None,
        Some(value) => Some(Certificate::from_value(value).map_err(|e| match e {
            CertificateError::TooLarge => FetchError::TooLarge(e.to_string()),
            _ => FetchError::BadAnswer(e.to_string()),
        })?),
    };
    let certified = certificate.as_ref().and_then(Certificate::scopes);
    let credentials = Credentials {
        authorized_scopes: authorized_scopes
            .map(|scopes| scope::narrow(certified.as_deref(), scopes)),
        client_id: response.client_id,
        access_token: SecretString::new(response.access_token),
        certificate,
    };
    let signer = Signer::new(&credentials).map_err(|e| match e {
        HawkError::TooLong { .. } => FetchError::TooLarge(e.to_string()),
        other => FetchError::BadAnswer(other.to_string()),
    })?;
    Ok(Credential::Taskcluster {
        client_id: credentials.client_id,
        signer: Box::new(signer),
    })
}

fn bad(what: &str) -> FetchError {
    FetchError::BadAnswer(what.to_owned())
}

#[cfg(test)]
mod tests;
