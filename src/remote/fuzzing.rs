//! Entry points for fuzzing: what identity providers answer. See [`crate::fuzzing`].

use std::sync::LazyLock;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use url::Url;

use super::http_client::HttpResponse;
use super::oauth::fuzzing::read;
use super::provider_metadata::ProviderMetadata;
use super::retry::{overload_delay, retry_after as delay};
use crate::clock::UnixMillis;

const NOW: UnixMillis = UnixMillis::from_secs(1_790_000_000);

static ISSUER: LazyLock<Option<Url>> = LazyLock::new(|| Url::parse("https://a.example/").ok());

fn response(status: StatusCode, headers: HeaderMap, body: &[u8]) -> HttpResponse {
    HttpResponse {
        status,
        headers,
        body: Bytes::copy_from_slice(body),
    }
}

/// Reads the response of a token endpoint, as a success and as an error.
pub fn oauth_response(body: &[u8]) {
    for status in [
        StatusCode::OK,
        StatusCode::BAD_REQUEST,
        StatusCode::UNAUTHORIZED,
    ] {
        read(&response(status, HeaderMap::new(), body), NOW);
    }
}

/// Reads an issuer's metadata.
pub fn provider_metadata(document: &[u8]) {
    if let Some(url) = &*ISSUER {
        let _ = ProviderMetadata::read(document, url.as_str(), url);
    }
}

/// Reads how long to wait: one line each for `Retry-After`, `Date` and `X-RateLimit-Reset`.
pub fn retry_after(data: &[u8]) {
    let names = [
        header::RETRY_AFTER,
        header::DATE,
        super::retry::X_RATELIMIT_RESET,
    ];
    let mut headers = HeaderMap::new();
    for (name, line) in names.into_iter().zip(data.split(|b| *b == b'\n')) {
        if let Ok(value) = HeaderValue::from_bytes(line) {
            headers.insert(name, value);
        }
    }
    let response = response(StatusCode::TOO_MANY_REQUESTS, headers, b"");
    let (wait, overload) = (delay(&response, NOW), overload_delay(&response, NOW));
    assert!(overload.is_some() && wait.is_none_or(|wait| overload == Some(wait)));
    let _ = wait.map(|wait| NOW.plus(wait));
}
