//! Successful responses of a token endpoint (RFC 6749 §5.1, RFC 8693 §2.2.1).

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::MAX_TOKEN_BYTES;
use crate::clock::UnixMillis;
use crate::credential::FetchError;
use crate::remote::http_client::HttpResponse;
use crate::secret::SecretString;

/// A bearer token and the parameters issued with it.
#[derive(Clone, Debug)]
pub struct TokenResponse {
    /// The token: 1 to [`MAX_TOKEN_BYTES`] visible ASCII characters.
    pub access_token: SecretString,
    /// By the local clock, counted from when the request was sent; `None` if the server omits it.
    pub expires_at: Option<UnixMillis>,
    /// The granted scopes; `None` if they are those requested (RFC 6749 §5.1).
    pub scope: Option<Vec<String>>,
    /// A refresh token.
    pub refresh_token: Option<SecretString>,
    /// An ID token, which has not been verified.
    pub id_token: Option<SecretString>,
    /// The recovery code that replaces the one just used (Auth0's MFA grants).
    pub recovery_code: Option<SecretString>,
    /// The type of the issued token (RFC 8693 §3).
    pub issued_token_type: Option<String>,
}

/// The response as sent. `Option<Value>` where servers are known to deviate from the RFC.
#[derive(Deserialize)]
struct RawResponse {
    access_token: String,
    token_type: Option<String>,
    expires_in: Option<Value>,
    scope: Option<Value>,
    refresh_token: Option<String>,
    id_token: Option<String>,
    recovery_code: Option<String>,
    issued_token_type: Option<String>,
}

/// Parses a 200 response to a request sent at `sent_at`.
pub(super) fn parse(
    response: &HttpResponse,
    sent_at: UnixMillis,
) -> Result<TokenResponse, FetchError> {
    // serde's error message would quote the body.
    let raw: RawResponse = serde_json::from_slice(&response.body)
        .map_err(|_| bad("the response does not have the shape {access_token, token_type, …}"))?;
    let access_token = SecretString::new(raw.access_token);
    check_type(raw.token_type.as_deref())?;
    check_token(access_token.expose())?;
    Ok(TokenResponse {
        access_token,
        expires_at: expires_in(raw.expires_in.as_ref())?.map(|life| sent_at.plus(life)),
        scope: scope(raw.scope.as_ref())?,
        refresh_token: raw.refresh_token.map(SecretString::new),
        id_token: raw.id_token.map(SecretString::new),
        recovery_code: raw.recovery_code.map(SecretString::new),
        issued_token_type: raw.issued_token_type,
    })
}

/// A token of another type cannot be sent as a bearer token (RFC 6749 §7.1). Messages use only
/// known type names, never the server's text.
fn check_type(token_type: Option<&str>) -> Result<(), FetchError> {
    let Some(token_type) = token_type else {
        return Err(bad("the response has no token_type"));
    };
    let problem = match token_type.to_ascii_lowercase().as_str() {
        "bearer" => return Ok(()),
        "n_a" => "token_type is N_A: what was issued is not an access token",
        "dpop" | "pop" => "token_type is not Bearer: the token is bound to a key",
        "mac" => "token_type is mac, not Bearer",
        _ => "token_type is not Bearer",
    };
    Err(bad(problem))
}

fn check_token(token: &str) -> Result<(), FetchError> {
    if token.len() > MAX_TOKEN_BYTES {
        let text = format!("the access token is larger than {MAX_TOKEN_BYTES} bytes");
        return Err(FetchError::TooLarge(text));
    }
    if token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(bad(
            "the access token is empty or has characters that are not allowed in a header",
        ));
    }
    Ok(())
}

/// The lifetime in seconds. Some servers send a string of digits or a fraction. An excessive
/// lifetime is harmless, since `cache.max_age` limits it; a lifetime of zero is an error, since
/// the token could not be used.
fn expires_in(value: Option<&Value>) -> Result<Option<Duration>, FetchError> {
    let seconds = match value {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Number(number)) => number.as_f64(),
        Some(Value::String(text))
            if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) =>
        {
            text.parse().ok()
        }
        Some(_) => None,
    };
    match seconds {
        Some(seconds) if seconds >= 1.0 => Ok(Some(
            Duration::try_from_secs_f64(seconds.floor()).unwrap_or(Duration::MAX),
        )),
        Some(_) => Err(bad("expires_in is not above zero")),
        None => Err(bad("expires_in is not a number")),
    }
}

/// A space-separated string, or an array as sent by some servers.
fn scope(value: Option<&Value>) -> Result<Option<Vec<String>>, FetchError> {
    let wrong = || bad("scope is not a string");
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => {
            let items = text.split(' ').filter(|s| !s.is_empty());
            Ok(Some(items.map(str::to_owned).collect()))
        }
        Some(Value::Array(items)) => items
            .iter()
            .map(|item| item.as_str().map(str::to_owned).ok_or_else(wrong))
            .collect::<Result<_, _>>()
            .map(Some),
        Some(_) => Err(wrong()),
    }
}

fn bad(what: &str) -> FetchError {
    FetchError::BadAnswer(what.to_owned())
}
