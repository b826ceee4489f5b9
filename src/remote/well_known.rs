//! Where an issuer publishes its metadata, how the document is fetched, and which URLs in it may
//! be used (OpenID Connect Discovery §4, RFC 8414 §3).

use http::header::{ACCEPT, AUTHORIZATION};
use http::{HeaderMap, HeaderValue, StatusCode};
use url::Url;

use super::http_client::{HttpClient, HttpResponse, is_loopback};
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

/// GETs a JSON document. Checks the status only: the content types in use vary, and the parsers
/// are strict.
///
/// `named_by_peer` says what `url` is if a peer named it; errors then do not quote it.
pub(super) async fn get_json(
    client: &HttpClient,
    url: &Url,
    named_by_peer: Option<&str>,
) -> Result<HttpResponse, KeyFetchError> {
    get_json_with(client, url, named_by_peer, None).await
}

/// Like [`get_json`], authenticated with `token` if it is for `url`.
pub(super) async fn get_json_with(
    client: &HttpClient,
    url: &Url,
    named_by_peer: Option<&str>,
    token: Option<&KeysToken>,
) -> Result<HttpResponse, KeyFetchError> {
    let accept = HeaderValue::from_static("application/jwk-set+json, application/json");
    let mut headers = HeaderMap::from_iter([(ACCEPT, accept)]);
    let authorization = match token {
        Some(token) => token.authorization(url).await?,
        None => None,
    };
    let authenticated = authorization.is_some();
    headers.extend(authorization.map(|value| (AUTHORIZATION, value)));
    let response = client.get(url, headers).await.map_err(|error| {
        KeyFetchError(match named_by_peer {
            Some(what) => format!("{what}: {}", error.without_host()),
            None => error.to_string(),
        })
    })?;
    if response.status == StatusCode::OK {
        return Ok(response);
    }
    let host = url.host_str().unwrap_or_default();
    let (status, path) = (response.status, url.path());
    let denied = matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
    let advice = match token {
        _ if !denied => "",
        None => "; if it is for authenticated clients only, set keys_token",
        Some(_) if authenticated => "; check what keys_token is allowed to read",
        Some(_) => {
            "; keys_token is not sent there, because it is not at the issuer's own origin: set jwks_url"
        }
    };
    Err(KeyFetchError(match named_by_peer {
        Some(what) => format!("{what} returned {status}{advice}"),
        None => format!("{host} returned {status} for {path}{advice}"),
    }))
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
