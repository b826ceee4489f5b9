//! Where an issuer publishes its metadata, how the document is fetched, and which URLs in it may
//! be used (OpenID Connect Discovery §4, RFC 8414 §3).

use http::header::{ACCEPT, AUTHORIZATION};
use http::{HeaderMap, HeaderValue, StatusCode};
use url::Url;

use super::http_client::{HttpClient, HttpResponse, TransportError, is_loopback};
use super::keys_token::KeysToken;
use crate::token::KeyFetchError;

/// The OpenID Connect location: appended to the issuer, without its trailing slash (OpenID
/// Connect Discovery §4.1).
pub(super) fn openid_configuration(issuer: &Url) -> Url {
    let mut location = issuer.clone();
    let path = issuer.path().trim_end_matches('/');
    location.set_path(&format!("{path}/.well-known/openid-configuration"));
    location
}

/// The OAuth 2.0 location: inserted between host and path (RFC 8414 §3.1).
pub(super) fn oauth_authorization_server(issuer: &Url) -> Url {
    let mut location = issuer.clone();
    let path = issuer.path().trim_end_matches('/');
    location.set_path(&format!("/.well-known/oauth-authorization-server{path}"));
    location
}

/// Why a document could not be fetched.
#[derive(Debug)]
pub(super) struct GetError {
    text: String,
    /// Whether there was no response, so that it is not worth asking the same host for another document.
    pub(super) no_response: bool,
}

impl From<GetError> for KeyFetchError {
    fn from(error: GetError) -> Self {
        Self(error.text)
    }
}

impl std::fmt::Display for GetError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

/// GETs a JSON document, authenticated with `token` if it is for `url`. Checks the status only: the
/// content types in use vary, and the parsers are strict.
///
/// `named_by_peer` says what `url` is if a peer named it; errors then do not quote it.
pub(super) async fn get_json(
    client: &HttpClient,
    url: &Url,
    named_by_peer: Option<&str>,
    token: Option<&KeysToken>,
) -> Result<HttpResponse, GetError> {
    let failed = |text, no_response| GetError { text, no_response };
    let accept = HeaderValue::from_static("application/jwk-set+json, application/json");
    let mut headers = HeaderMap::from_iter([(ACCEPT, accept)]);
    let authorization = match token {
        Some(token) => {
            let read = token.authorization(url).await;
            read.map_err(|error| failed(error.to_string(), true))?
        }
        None => None,
    };
    let authenticated = authorization.is_some();
    headers.extend(authorization.map(|value| (AUTHORIZATION, value)));
    let response = client.get(url, headers).await.map_err(|error| {
        let text = match named_by_peer {
            Some(what) => format!("{what}: {}", error.without_host()),
            None => error.to_string(),
        };
        failed(text, !matches!(error, TransportError::TooLarge { .. }))
    })?;
    if response.status == StatusCode::OK {
        return Ok(response);
    }
    let host = url.host_str().unwrap_or_default();
    let (status, path) = (response.status, url.path());
    let advice = advice(status, token.is_some(), authenticated);
    let text = match named_by_peer {
        Some(what) => format!("{what} returned {status}{advice}"),
        None => format!("{host} returned {status} for {path}{advice}"),
    };
    Err(failed(text, false))
}

/// What to do about `status`, if that is about `keys_token`.
fn advice(status: StatusCode, has_token: bool, authenticated: bool) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {}
        _ => return "",
    }
    match (has_token, authenticated) {
        (false, _) => "; if it is for authenticated clients only, set keys_token",
        (true, true) => "; check what keys_token is allowed to read",
        (true, false) => {
            "; keys_token is not sent there, because it is not at the issuer's own origin: set jwks_url"
        }
    }
}

/// Whether a URL from the metadata of `issuer` may be used: https, and on loopback only if the
/// issuer itself is. Plain http is for loopback only.
pub fn is_acceptable_url(url: &Url, issuer: &Url) -> bool {
    let (local, local_issuer) = (is_loopback(url), is_loopback(issuer));
    match url.scheme() {
        "https" => !local || local_issuer,
        "http" => local && local_issuer,
        _ => false,
    }
}
