//! What both Taskcluster exchanges have in common (taskcluster.md §1, §2): the bearer goes
//! in a header, credentials or an odd error come back.

use http::header::{ACCEPT, AUTHORIZATION};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::Deserialize;
use serde_json::Value;
use url::Url;
use zeroize::Zeroizing;

use super::http_client::{HttpClient, HttpResponse, TransportError};
use crate::clock::UnixMillis;
use crate::credential::{Credential, FetchError, IdentityHasher, Issued, SwapRequest};
use crate::hawk::certificate::{Certificate, CertificateError};
use crate::hawk::{Credentials, HawkError, Signer, scope};
use crate::secret::SecretString;
use crate::token::BearerToken;

/// The largest answer that either exchange gives, in bytes: a certificate with a hundred
/// scopes has 10 KiB.
pub const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// The longest `code` or `name` of an error that is repeated in logs, in characters.
const MAX_KIND_CHARS: usize = 48;

/// Adds the token's digest: what these exchanges give is bound to the token.
pub(super) fn bind_to_token(
    request: &SwapRequest,
    key: &mut IdentityHasher,
) -> Result<(), FetchError> {
    key.part(&bearer(request)?.digest().0);
    Ok(())
}

/// Asks `url` for credentials and takes the answer for what it is. `refusal` is the status
/// with which this exchange says `InputError` when it means that the token is no good.
pub(super) async fn exchange(
    client: &HttpClient,
    url: &Url,
    request: &SwapRequest,
    refusal: StatusCode,
    now: UnixMillis,
) -> Result<Issued, FetchError> {
    let headers = headers(bearer(request)?)?;
    let answer = client.get(url, headers).await.map_err(unreachable)?;
    if answer.status == StatusCode::OK {
        return issued(&answer, request.scopes.as_deref(), now);
    }
    let kind = kind(&answer);
    let text = format!("status {}{}", answer.status.as_u16(), parenthesised(&kind));
    Err(match answer.status {
        status if status == refusal && kind == "InputError" => FetchError::Refused(text),
        StatusCode::TOO_MANY_REQUESTS => unavailable(text, &answer),
        status if status.is_server_error() => unavailable(text, &answer),
        _ => FetchError::BadAnswer(text),
    })
}

pub(super) fn bearer(request: &SwapRequest) -> Result<&BearerToken, FetchError> {
    request.bearer.as_ref().ok_or_else(|| {
        FetchError::NotEntitled("this source passes the caller's token on, and none came".into())
    })
}

fn headers(bearer: &BearerToken) -> Result<HeaderMap, FetchError> {
    // The word is case-sensitive at `/login/oauth/credentials`.
    let text = Zeroizing::new(format!("Bearer {}", bearer.expose()));
    let mut value = HeaderValue::from_str(&text)
        .map_err(|_| FetchError::Refused("the token cannot stand in a header".into()))?;
    value.set_sensitive(true);
    let mut headers = HeaderMap::with_capacity(2);
    headers.insert(AUTHORIZATION, value);
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    Ok(headers)
}

/// A party that cannot be spoken to, or answers more than it may.
pub(super) fn unreachable(error: TransportError) -> FetchError {
    match error {
        TransportError::Connection { .. } | TransportError::Timeout { .. } => {
            FetchError::Unavailable {
                cause: error.to_string(),
                retry_after: None,
            }
        }
        other => FetchError::BadAnswer(other.to_string()),
    }
}

fn unavailable(cause: String, answer: &HttpResponse) -> FetchError {
    FetchError::Unavailable {
        cause,
        retry_after: answer.retry_after(),
    }
}

/// The error's `code` (API services) or `name` (web-server). Nothing else of an error body
/// is ever repeated: `message` and `payload` may hold anything.
fn kind(answer: &HttpResponse) -> String {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Body {
        code: Value,
        name: Value,
    }
    let body: Body = serde_json::from_slice(&answer.body).unwrap_or_default();
    let texts = [&body.code, &body.name].map(Value::as_str);
    // An API service's `code` and web-server's `name` say the same word.
    let said = texts.iter().flatten().find(|text| **text == "InputError");
    let said = said.or_else(|| texts.iter().flatten().next());
    said.map_or_else(String::new, |text| {
        text.chars()
            .filter(|c| c.is_ascii_alphanumeric() || "_-. ".contains(*c))
            .take(MAX_KIND_CHARS)
            .collect()
    })
}

fn parenthesised(kind: &str) -> String {
    if kind.is_empty() {
        return String::new();
    }
    format!(" ({kind})")
}

#[derive(Deserialize)]
struct Granted {
    expires: String,
    credentials: GrantedCredentials,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct GrantedCredentials {
    client_id: String,
    access_token: String,
    #[serde(default)]
    certificate: Option<Value>,
}

/// The credentials in a 200 answer that was asked for at `now`, with or without a
/// certificate, narrowed to `wanted`.
fn issued(
    answer: &HttpResponse,
    wanted: Option<&[String]>,
    now: UnixMillis,
) -> Result<Issued, FetchError> {
    if !answer.is_json() {
        return Err(bad("the answer is not JSON"));
    }
    // serde's own text would quote from the body.
    let granted: Granted = serde_json::from_slice(&answer.body)
        .map_err(|_| bad("the answer does not have the shape {expires, credentials}"))?;
    let expires: jiff::Timestamp = granted
        .expires
        .parse()
        .map_err(|_| bad("`expires` is not an ISO 8601 time"))?;
    let expires = UnixMillis(expires.as_millisecond());
    Ok(Issued {
        credential: credential(granted.credentials, wanted)?,
        expires_at: Some(in_our_clock(expires, answer.date(), now)),
    })
}

/// A wrong clock on either side must neither waste credentials nor stretch them: what
/// counts is how much is left by the exchange's own `Date`.
fn in_our_clock(expires: UnixMillis, date: Option<UnixMillis>, now: UnixMillis) -> UnixMillis {
    match date {
        Some(date) => now.offset_by(expires.0.saturating_sub(date.0)),
        None => expires,
    }
}

fn credential(
    granted: GrantedCredentials,
    wanted: Option<&[String]>,
) -> Result<Credential, FetchError> {
    let certificate = match &granted.certificate {
        None | Some(Value::Null) => None,
        // Go programs write a missing one so.
        Some(Value::String(text)) if text.is_empty() => None,
        Some(value) => Some(Certificate::from_value(value).map_err(|e| match e {
            CertificateError::TooLarge => FetchError::TooLarge(e.to_string()),
            _ => FetchError::BadAnswer(e.to_string()),
        })?),
    };
    let held = certificate.as_ref().and_then(Certificate::scopes);
    let credentials = Credentials {
        authorized_scopes: wanted.map(|wanted| scope::narrow(held.as_deref(), wanted)),
        client_id: granted.client_id,
        access_token: SecretString::new(granted.access_token),
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
